"""Beside the core: tests, Django, tasks that can be aborted."""
