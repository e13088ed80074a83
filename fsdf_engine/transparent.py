"""What a task shows of itself and of its function: to `dir`, `print`, `help` and who mistypes.

`wrapt` passes everything on, so that `inspect` sees the function. People look for the task's own
methods, too.
"""

from __future__ import annotations

import sys
from types import GenericAlias
from typing import TYPE_CHECKING, Any

from wrapt import ObjectProxy

from .spelling import did_you_mean

__all__ = ["Doc", "Transparent"]
if TYPE_CHECKING:

    class _Base(ObjectProxy[Any]): ...
else:
    _Base = ObjectProxy  # which is generic in newer versions only


class Doc:
    """A class's docstring, whose instances have their function's; `help` gets the methods, too.

    pydoc takes what passes for a function as one and shows its docstring alone, which is therefore
    the only place; everybody else, `inspect.getdoc` included, gets the function's own.
    """

    def __init__(self, text: str | None) -> None:
        self._text = text

    def __get__(self, shown: Transparent | None, owner: type) -> str | None:
        if shown is None:
            return self._text
        doc: str | None = shown.__wrapped__.__doc__
        if sys._getframe(1).f_globals.get("__name__") != "pydoc":
            return doc
        own = ((name, getattr(owner, name).__doc__ or "") for name in _own(owner))
        lines = [f"    {name:<21} {text.partition(chr(10))[0]}" for name, text in own]
        return "\n".join([doc or "", "", f"It is {shown!r}:", "", *lines]).lstrip("\n")

    def __set__(self, shown: Transparent, text: str | None) -> None:
        shown.__wrapped__.__doc__ = text


class Transparent(_Base):
    """A proxy that keeps `_self_...` to itself and passes on what its class does not have."""

    __class_getitem__: Any = classmethod(GenericAlias)  # takes two of three where one has a default

    def __getattr__(self, name: str) -> Any:
        """Pass on; name and suggest where the function has no such attribute either."""
        try:
            return getattr(self.__wrapped__, name)
        except AttributeError:
            public = (known for known in dir(self) if not known.startswith("_"))
            hint = "" if name.startswith("_") else did_you_mean(name, public)
            error = AttributeError(f"{self!r} has no attribute {name!r}{hint}")
            error.name = name  # with an `obj` the interpreter would suggest once more
            raise error from None

    def __dir__(self) -> list[str]:
        return sorted({*dir(self.__wrapped__), *_own(type(self))})

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)


def _own(owner: type) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]
