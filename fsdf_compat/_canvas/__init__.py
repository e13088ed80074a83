"""Parts of `celery.canvas`."""
