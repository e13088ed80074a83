"""`fsdf migrate check`: what of a project's use of Celery works, differs, or is not there."""
