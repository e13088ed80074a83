"""What settings name: a result backend, a pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, TypeAlias

from fsdf_engine import did_you_mean

from ..exceptions import ImproperlyConfigured
from ..utils.imports import symbol_by_name

__all__ = ["NotThere", "named"]
_ROOT = __name__.rpartition("._app")[0]
Finder: TypeAlias = Callable[[str], Any]


class NotThere(ImproperlyConfigured, ModuleNotFoundError):
    """A setting names what there is not; Celery's error for it, too, by whose name it is shown."""


NotThere.__name__ = NotThere.__qualname__ = ModuleNotFoundError.__name__


def named(
    what: str, name: str, aliases: Mapping[str, str | None], find: Finder = symbol_by_name
) -> Any:
    """Return what a setting names, by an alias or by its place, where `find` finds it.

    Raises:
        ImproperlyConfigured: there is none. What a module of the user's raises is raised as it is.
        ValueError: it is no name.
    """
    place = aliases.get(name) or name
    try:
        return find(place)
    except ModuleNotFoundError as error:
        if not f"{_module(place)}.".startswith(f"{error.name}."):  # but one that it imports
            raise
        why = f": {error}" if name in aliases else did_you_mean(name, aliases)
        raise NotThere(f"there is no {what} {name!r}{why}", name=error.name) from error
    except AttributeError as error:
        if not isinstance(error.obj, ModuleType) or error.obj.__name__ != _module(place):
            raise
        raise NotThere(f"there is no {what} {name!r}: {error}") from error


def _module(place: str) -> str:
    """Return the module in which something is: of "module:name", of "module.name"."""
    module, colon, _ = place.partition(":")
    module = module if colon else module.rpartition(".")[0] or module
    return _ROOT + module.removeprefix("celery") if module.startswith("celery.") else module
