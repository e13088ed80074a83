"""The base class of tasks in a Django project."""

from __future__ import annotations

import functools
from typing import Any

from django.db import transaction

from ...app.task import Task

__all__ = ["DjangoTask"]


class DjangoTask(Task):
    """A task that can be sent when the transaction is committed."""

    abstract = True

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """As `delay`, once the transaction is committed; not at all if it is rolled back."""
        transaction.on_commit(functools.partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """As `apply_async`, once the transaction is committed; not at all if it is rolled back."""
        transaction.on_commit(functools.partial(self.apply_async, *args, **kwargs))
