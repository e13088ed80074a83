"""A Celery project whose workers are killed: what it sends, who kills, and who judges."""
