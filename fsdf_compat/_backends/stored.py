"""Exceptions as they are stored, and made anew from that; also how operations are repeated."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .. import exceptions
from ..exceptions import SecurityError
from ..utils.serialization import create_exception_cls, ensure_serializable

__all__ = ["exception_form", "exception_of"]
_ROOT = __name__.partition(".")[0]  # what this package is imported as; stored it is "celery"


def exception_form(error: BaseException, encode: Callable[[Any], Any]) -> dict[str, Any]:
    """Return an exception as names and arguments; what cannot be encoded is told by its repr."""
    kind = type(error)
    return {
        "exc_type": getattr(kind, "__qualname__", kind.__name__),
        "exc_message": ensure_serializable(error.args, encode),
        "exc_module": _renamed(kind.__module__, _ROOT, "celery"),
    }


def exception_of(stored: Any, module: str) -> BaseException:
    """Return the exception that was stored so; one of a class of that name if it is not known here.

    Nothing is imported for it, and nothing but a class of exceptions is called: what is stored is
    not to be trusted. `module` is that of a class that is stored without one.

    Raises:
        SecurityError: the name is that of something else.
        ValueError, TypeError: this is no stored exception.
    """
    if not isinstance(stored, dict):
        try:
            stored = dict(stored)
        except TypeError as error:
            raise TypeError(
                "a stored exception is an instance of BaseException or a dictionary, but this is"
                f" {stored!r}"
            ) from error
    if "exc_type" not in stored:
        raise ValueError("a stored exception names its type as 'exc_type'")
    name, home = stored["exc_type"], stored.get("exc_module")
    told = stored.get("exc_message", "")
    kind = create_exception_cls(name, module) if home is None else _known(home, name)
    if not isinstance(kind, type) or not issubclass(kind, BaseException):
        shown = name if home is None else f"{home}.{name}"
        raise SecurityError(f"Expected an exception class, got {shown} with payload {told}")
    try:
        return kind(*told) if isinstance(told, (tuple, list)) else kind(told)
    except Exception:  # it is made with other arguments than it keeps
        return Exception(f"{kind}({told})")


def _renamed(module: str, package: str, other: str) -> str:
    """Return a module's name, of one package as that of another one."""
    inside = isinstance(module, str) and f"{module}.".startswith(f"{package}.")
    return other + module.removeprefix(package) if inside else module


def _known(module: str, name: str) -> Any:
    """Return what an imported module has of this name, which may be of a class in a class."""
    try:
        found: Any = sys.modules[_renamed(module, "celery", _ROOT)]
        for part in name.split("."):
            found = getattr(found, part)
        return found
    except (KeyError, AttributeError):
        return create_exception_cls(name, exceptions.__name__)
