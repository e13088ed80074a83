"""The settings: their families, types, defaults and old names.

Beside those of Celery 5.7 there are `fsdf_queue_suffix` (what the names of queues with flat
messages end with), `import_unknown_tasks` (tasks that nobody has imported are looked for) and
`worker_coroutines` (how many coroutines run at once beside the pool's slots).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from .._app.settings import (
    DEFAULT_ACCEPT_CONTENT,
    DEFAULT_POOL,
    DEFAULT_PROCESS_LOG_FMT,
    DEFAULT_SECURITY_DIGEST,
    DEFAULT_TASK_LOG_FMT,
    NAMESPACES,
    Option,
)
from ..utils import deprecated
from ..utils.serialization import strtobool

__all__ = [
    "DEFAULTS", "DEFAULT_ACCEPT_CONTENT", "DEFAULT_POOL", "DEFAULT_PROCESS_LOG_FMT",
    "DEFAULT_SECURITY_DIGEST", "DEFAULT_TASK_LOG_FMT", "NAMESPACES", "SETTING_KEYS", "Option",
    "find", "flatten", "strtobool",
]  # fmt: skip


class searchresult(NamedTuple):
    """Where an option was found."""

    namespace: str | None
    key: str
    type: Any


def _with_prefix(before: str, name: str, option: Option) -> Iterator[tuple[Any, ...]]:
    yield before + name, option


def _old_names(before: str, name: str, option: Option) -> Iterator[tuple[Any, ...]]:
    for old in option.old or {before + name}:
        yield old.upper(), before + name, option


def flatten(
    d: Mapping[str, Any],
    root: str = "",
    keyfilter: Callable[[str, str, Option], Any] = _with_prefix,
) -> Iterator[Any]:
    """Yield the options of all families, by default as (full name, option)."""
    families = {}
    for name, option in d.items():
        if isinstance(option, dict):
            families[name] = option
        else:
            yield from keyfilter(root, name, option)
    for name, options in families.items():
        yield from flatten(options, f"{root}{name}_", keyfilter)


_OPTIONS: dict[str, Option] = dict(flatten(NAMESPACES))
DEFAULTS: dict[str, Any] = {name: option.default for name, option in _OPTIONS.items()}
_compat = list(flatten(NAMESPACES, keyfilter=_old_names))
_OLD_DEFAULTS = {old: option.default for old, _, option in _compat}
_TO_OLD_KEY = {new: old for old, new, _ in _compat}
_TO_NEW_KEY = {old: new for old, new, _ in _compat}
SETTING_KEYS = set(DEFAULTS)
_OLD_SETTING_KEYS = set(_TO_NEW_KEY)


def find_deprecated_settings(source: Any) -> Any:
    """Warn of settings that are to be given up; return the source."""
    for name, option in _OPTIONS.items():
        if option.remove_by and getattr(source, name, None) is not None:
            deprecated.warn(
                description=f"The {name!r} setting",
                deprecation=option.deprecate_by,
                removal=option.remove_by,
                alternative=f"Use the {option.alt} instead",
            )
    return source


@cache
def find(name: str, namespace: str = "celery") -> searchresult:
    """Find an option by its name within its family, or by its full name.

    Raises:
        KeyError: there is none.
    """
    name, namespace = name.lower(), namespace.lower()
    families = {key: value for key, value in NAMESPACES.items() if isinstance(value, dict)}
    for family in (namespace, *families):
        if name in families.get(family, ()):
            return searchresult(family, name, families[family][name])
        if family == name and family in families:
            return searchresult(None, family, families[family])
    return searchresult(None, name, _OPTIONS[name])
