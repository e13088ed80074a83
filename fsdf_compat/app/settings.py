"""`app.conf`: attributes and items are the same, and nothing is read before it is asked for."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from types import ModuleType
from typing import Any

from ..exceptions import ImproperlyConfigured
from .defaults import DEFAULTS, KNOWN, OLD_NAMES

__all__ = ["Settings", "imported", "values_of"]
_FROM_ENVIRONMENT = {"broker_url": "CELERY_BROKER_URL", "result_backend": "CELERY_RESULT_BACKEND"}


class Settings(MutableMapping[str, Any]):
    """The settings of one app: set values, then loaded ones, then defaults.

    `CELERY_BROKER_URL` and `CELERY_RESULT_BACKEND` in the environment win over all of them. Names
    that nobody knows are kept, for a project's own use; `misspelt` finds those that look wrong.
    """

    def __init__(self, changes: Mapping[str, Any]) -> None:
        vars(self).update(_set=_renamed(changes), _loaded={}, _pending=[])

    def load_later(self, source: Callable[[], Mapping[str, Any]]) -> None:
        """Call `source` at the next look for its values; what was loaded before is weaker."""
        self._pending.append(source)

    def _values(self) -> dict[str, Any]:
        while self._pending:
            self._loaded.update(self._pending.pop(0)())
        return {**self._loaded, **self._set}

    def __getitem__(self, key: str) -> Any:
        key = OLD_NAMES.get(key, key)
        if (name := _FROM_ENVIRONMENT.get(key)) and (value := os.environ.get(name)):
            return value
        values = self._values()
        return values[key] if key in values else DEFAULTS[key]

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_"):
            raise AttributeError(key)
        try:
            return self[key]
        except KeyError:
            if key in KNOWN:
                return None
            raise AttributeError(f"there is no setting {key!r}{_hint(key)}") from None

    def __setitem__(self, key: str, value: Any) -> None:
        self._set[OLD_NAMES.get(key, key)] = value

    __setattr__ = __setitem__

    def __delitem__(self, key: str) -> None:
        del self._set[key]

    def __iter__(self) -> Iterator[str]:
        return iter({**DEFAULTS, **self._values()})

    def __len__(self) -> int:
        return len({**DEFAULTS, **self._values()})

    def __repr__(self) -> str:
        return f"<Settings: {', '.join(sorted(self._values())) or 'the defaults'}>"

    def unused(self) -> list[str]:
        """Return the names that were set and that this version does not use yet."""
        return sorted(key for key in self._values() if key in KNOWN or _is_old(key))

    def misspelt(self) -> dict[str, str]:
        """Return the names that were set, are unknown and resemble a known one, with that one."""
        unknown = [key for key in self._values() if key not in KNOWN and key not in DEFAULTS]
        return {key: close for key in unknown if (close := _close(key))}


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {OLD_NAMES.get(key, key): value for key, value in values.items()}


def _is_old(key: str) -> bool:
    """Say whether a name looks like a setting from before version 4."""
    return key.isupper() and key.startswith(("CELERY", "BROKER_"))


def _close(key: str) -> str:
    return (difflib.get_close_matches(key, [*DEFAULTS, *KNOWN], 1, 0.85) or [""])[0]


def _hint(key: str) -> str:
    close = _close(key)
    return f"; did you mean {close!r}?" if close else ""


def values_of(source: Any, namespace: str | None = None) -> dict[str, Any]:
    """Return the settings that a module, class or mapping holds; "module:name" is imported.

    With a namespace only the names that begin with it count, in upper case: `CELERY_BROKER_URL`.

    Raises:
        ImproperlyConfigured: there is no such module or attribute.
    """
    if isinstance(source, str):
        source = imported(source)
    if not isinstance(source, Mapping):
        source = {name: getattr(source, name) for name in dir(source) if not name.startswith("_")}
    found: dict[str, Any] = {}
    for name, value in source.items():
        if namespace:
            if name.startswith(prefix := f"{namespace.rstrip('_')}_"):
                found[name[len(prefix) :].lower()] = value
        elif name in DEFAULTS or name in KNOWN or _is_old(name):
            found[OLD_NAMES.get(name, name)] = value
        elif name.islower() and not callable(value) and not isinstance(value, ModuleType):
            found[name] = value  # a project's own, or misspelt
    return found


def imported(place: str) -> Any:
    """Import `package.module`, or what it has by a name: `package.module:name`, or with a dot.

    Raises:
        ImproperlyConfigured: there is no such module or name.
    """
    module, _, name = place.partition(":")
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        head, _, tail = module.rpartition(".")
        if head and not name:
            return imported(f"{head}:{tail}")
        raise ImproperlyConfigured(f"there is no module {module!r}; is the folder right?") from None
    if name and not hasattr(found, name):
        raise ImproperlyConfigured(f"module {module!r} has no {name!r}")
    return getattr(found, name) if name else found
