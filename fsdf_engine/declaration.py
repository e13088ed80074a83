"""What may be declared as a task: functions in all their forms. What none can run is refused."""

from __future__ import annotations

import enum
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple

from .core.binding import Binding, Unnamed
from .errors import ConfigurationError

__all__ = [
    "Form", "Home", "Unbound", "binding_of", "check_importing", "declaring", "form_of", "home_of",
    "owner_of", "title",
]  # fmt: skip

NO_HOMES = {"", "__main__", "__mp_main__", "builtins", "functools"}  # an import declares nothing
LAYERS = 100  # objects that have every attribute have no innermost one


class Form(enum.Enum):
    """How a function came to the decorator, which decides what an attribute access gives."""

    PLAIN = enum.auto()
    STATIC = enum.auto()  # a staticmethod object
    CLASS = enum.auto()  # a classmethod's function
    METHOD = enum.auto()  # written in a class, its first parameter is `self`


def form_of(fn: Any) -> tuple[Callable[..., Any], Form]:
    """Return the function that runs, and its form.

    Raises:
        ConfigurationError: it can be no task; says what can.
    """
    form = Form.PLAIN
    if isinstance(fn, (staticmethod, classmethod)):
        form = Form.STATIC if isinstance(fn, staticmethod) else Form.CLASS
        fn = fn.__func__
    if isinstance(fn, type):
        raise ConfigurationError(
            f"{fn.__qualname__} is a class; decorate a function that makes and uses its object"
        )
    if not callable(fn):
        raise ConfigurationError(f"{fn!r} is no function; decorate one")
    for inner in _layers(fn):
        if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
            raise ConfigurationError(
                f"{title(inner)} is a generator function, and a call of it runs nothing; decorate"
                " a function that goes through what it yields"
            )
    if form is Form.PLAIN and isinstance(fn, FunctionType) and _in_class(fn.__qualname__):
        first = next(iter(inspect.signature(fn).parameters), "")
        form = {"self": Form.METHOD, "cls": Form.CLASS}.get(first, Form.PLAIN)
    return fn, form


def _layers(fn: Any) -> Iterator[Any]:
    """Yield a callable and what it calls in the end: behind partials, wrappers, methods."""
    for _ in range(LAYERS):
        if fn is None:
            return
        yield fn
        if isinstance(fn, partial):
            fn = fn.func
        elif isinstance(fn, MethodType):
            fn = fn.__func__
        elif (inner := getattr(fn, "__wrapped__", None)) is not None:
            fn = inner
        else:
            call = getattr(type(fn), "__call__", None)  # noqa: B004
            fn = call if isinstance(call, FunctionType) else None


def _in_class(qualname: str) -> bool:
    outer = qualname.rpartition(".")[0]
    return bool(outer) and not outer.endswith("<locals>")


def title(fn: Any) -> str:
    """Return what a callable is called in messages."""
    if isinstance(fn, partial):
        return f"partial({title(fn.func)})"
    return str(getattr(fn, "__qualname__", None) or type(fn).__qualname__)


class Unbound(Unnamed):
    """The binding of a method: an object cannot travel in a message."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        where, _, name = fn.__qualname__.rpartition(".")
        cls = where.rpartition(".")[2]
        self._reason = (
            f"{cls}.{name} is a method, and no message can carry its `self`: decorate a function"
            f" that makes the object, `def {name}(...): return {cls}(...).{name}(...)`, or a"
            " @staticmethod or @classmethod"
        )

    def name(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[Any]]:
        """Refuse to be pushed."""
        raise ConfigurationError(self._reason)

    @property
    def bind(self) -> Any:
        """Refuse to be consumed."""
        raise ConfigurationError(self._reason)


def binding_of(fn: Callable[..., Any], form: Form) -> Binding | Unbound:
    """Return how messages meet the parameters.

    Raises:
        ConfigurationError: Python cannot tell them.
    """
    if form is Form.METHOD:
        return Unbound(fn)
    try:
        return Binding(fn, skip=int(form is Form.CLASS))
    except (ValueError, TypeError):  # a callable's attributes may be anything
        raise ConfigurationError(
            f"{title(fn)} does not tell its parameters; decorate a function that calls it:"
            f" `def f(a, b): return {title(fn)}(a, b)`"
        ) from None


def declaring(fn: Callable[..., Any], cls: type) -> type:
    """Return the one of `cls` and its bases that `fn` is written in."""
    name = fn.__qualname__.rpartition(".")[0]
    return next((base for base in cls.__mro__ if base.__qualname__ == name), cls)


def owner_of(fn: Callable[..., Any]) -> type:
    """Return the class that a classmethod's function is written in.

    Raises:
        ConfigurationError: its module does not have it.
    """
    found: Any = sys.modules.get(fn.__module__)
    for name in fn.__qualname__.split(".")[:-1]:
        found = getattr(found, name, None)
    if not isinstance(found, type):
        raise ConfigurationError(
            f"the class of {title(fn)} cannot be found; put it at the top level of its module"
        )
    return found


class Home(NamedTuple):
    """Where a task is declared."""

    modules: frozenset[str]  # to be imported by a process that needs the declaration
    nested: bool  # in a function that no import calls


def home_of(fn: Any) -> Home:
    """Return where the caller of the engine declares `fn` right now.

    That is the module being imported, which need not be the one that `fn` is written in.
    """
    frame: Any = sys._getframe(1)
    engine = __name__.partition(".")[0]
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] == engine:
        frame = frame.f_back
    in_function = frame is not None and bool(frame.f_code.co_flags & inspect.CO_OPTIMIZED)
    while frame and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    importing = frame.f_globals["__name__"] if frame and _is_module(frame.f_globals) else ""
    names = {getattr(fn, "__module__", None) or "", importing} - NO_HOMES
    in_function = in_function and importing in NO_HOMES
    return Home(frozenset(names), in_function and "<locals>" in title(fn))


def _is_module(names: dict[str, Any]) -> bool:
    """Say whether these are an imported module's, and no text's that is executed under its name."""
    module = sys.modules.get(names.get("__name__", ""))
    return module is not None and vars(module) is names and module.__spec__ is not None


def check_importing() -> None:
    """Refuse to push and to consume while a child process imports the main module."""
    from .core.family import importing_main

    if importing_main():
        raise ConfigurationError(
            "this child process is importing the main module; put `push` and `consume` under"
            " `if __name__ == '__main__':`"
        )
