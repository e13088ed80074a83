"""The tasks of an app by name."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, NoReturn

from .._state import get_current_app
from ..exceptions import InvalidTaskError, NotRegistered
from .autoretry import add_autoretry_behaviour

__all__ = ["TaskRegistry"]


class TaskRegistry(dict[str, Any]):
    """Tasks by name; NotRegistered names the one that is missing."""

    NotRegistered = NotRegistered

    def __missing__(self, key: str) -> NoReturn:
        raise self.NotRegistered(key)

    def register(self, task: Any) -> None:
        """Add a task, or an object of a task class.

        Raises:
            InvalidTaskError: it has no name.
        """
        if task.name is None:
            kind = type(task).__name__
            raise InvalidTaskError(f"task class {kind!r} has no name; give it an attribute 'name'")
        made: Any = task() if inspect.isclass(task) else task
        add_autoretry_behaviour(made)
        self[made.name] = made

    def unregister(self, name: Any) -> None:
        """Remove a task, given itself or by name."""
        try:
            self.pop(getattr(name, "name", name))
        except KeyError:
            raise self.NotRegistered(name) from None

    def regular(self) -> dict[str, Any]:
        """Return the tasks that are of no other type."""
        return self.filter_types("regular")

    def periodic(self) -> dict[str, Any]:
        """Return the tasks whose attribute `type` is "periodic"."""
        return self.filter_types("periodic")

    def filter_types(self, type: str) -> dict[str, Any]:
        """Return the tasks of one type."""
        return {
            name: task for name, task in self.items() if getattr(task, "type", "regular") == type
        }


def _unpickle_task(name: str) -> Any:
    return get_current_app().tasks[name]


def _unpickle_task_v2(name: str, module: str | None = None) -> Any:
    if module:
        import_module(module)
    return get_current_app().tasks[name]
