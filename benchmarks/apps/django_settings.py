"""Of a Django project with a database, for Celery's fixup."""

SECRET_KEY = "benchmarks"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
