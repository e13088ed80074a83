"""What a task shows of itself and of its function: to `dir`, `print`, `help` and who mistypes.

`wrapt` passes everything on, so that `inspect` sees the function. People look for the task's own
methods, too.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import update_wrapper
from types import FunctionType, GenericAlias, MethodType
from typing import TYPE_CHECKING, Any, TypeVar

from wrapt import ObjectProxy

from .spelling import did_you_mean

__all__ = ["Doc", "Proxy", "Signed", "Transparent", "signed"]
_P = inspect.Parameter
M = TypeVar("M", bound=Callable[..., Any])
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


if TYPE_CHECKING:

    class Proxy:
        """What the type checker sees of it: no attribute but those that are written there."""

        def __init__(self, wrapped: object) -> None: ...
else:
    Proxy = Transparent


class Signed:
    """A method that takes what the function takes, and shows that: `inspect` and `help` look.

    They look at what a bound method is made of, so each object has one of its own. The first access
    makes it, and all others find it in the object, which costs them less than binding a method.
    """

    def __init__(self, method: FunctionType) -> None:
        self._method, self._names = method, list[str]()

    def __set_name__(self, owner: type, name: str) -> None:
        self._names.append(name)

    def __get__(self, shown: Any, owner: type | None = None) -> Any:
        if shown is None:
            return self._method
        bound = MethodType(_showing(self._method, shown._self_binding), shown)
        for name in self._names:
            if inspect.getattr_static(type(shown), name) is self:  # no subclass has another one
                setattr(shown, name, bound)
        return bound


def signed(method: M) -> M:
    """Make of a method that takes `*args, **kwargs` a `Signed` one, which types know already."""
    return Signed(method)  # type: ignore[arg-type,return-value]


def _showing(method: FunctionType, binding: Any) -> FunctionType:
    """Return a copy of the method that shows the parameters which `binding` has, if it has any."""
    if (function := getattr(binding, "signature", None)) is None:
        return method
    taken, own = function.parameters, inspect.signature(method)
    first = []
    for p in own.parameters.values():
        if p.kind <= _P.POSITIONAL_OR_KEYWORD:
            while (name := p.name) in taken:
                p = p.replace(name=f"_{name}")
            first.append(p.replace(kind=_P.POSITIONAL_ONLY))
    code, names, closure = method.__code__, method.__globals__, method.__closure__
    copy = FunctionType(code, names, method.__name__, method.__defaults__, closure)
    update_wrapper(copy, method)
    shown = [*first, *taken.values()]
    copy.__signature__ = function.replace(  # type: ignore[attr-defined]
        parameters=shown, return_annotation=own.return_annotation
    )
    return copy


def _own(owner: type) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]
