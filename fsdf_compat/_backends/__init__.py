"""Parts of `celery.backends`."""
