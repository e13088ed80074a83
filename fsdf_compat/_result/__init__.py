"""Parts of `celery.result`."""
