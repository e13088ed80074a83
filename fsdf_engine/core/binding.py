"""How messages meet a function's parameters: compiled once per task. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..errors import ArgumentError, UnknownTask

__all__ = ["Binding", "Unnamed", "elsewhere", "unbound"]

_P = inspect.Parameter
_Convert = Callable[[Any], Any]


class Binding:
    """A function's parameters: `name` for publishers, `bind` for workers."""

    def __init__(self, fn: Callable[..., Any], *, skip: int = 0) -> None:
        """`skip` leading parameters are given by the engine (a bound task's `self`)."""
        self.signature, self._wraps = _signature(fn, skip)
        parameters = list(self.signature.parameters.values())
        self._title = getattr(fn, "__name__", repr(fn))
        kinds: dict[Any, list[str]] = {}
        for p in parameters:
            kinds.setdefault(p.kind, []).append(p.name)
        self._leading = kinds.get(_P.POSITIONAL_ONLY, [])
        self._plain = kinds.get(_P.POSITIONAL_OR_KEYWORD, [])
        self._star = kinds.get(_P.VAR_POSITIONAL, [""])[0]
        self._open = kinds.get(_P.VAR_KEYWORD, [""])[0]
        self._names = frozenset(self._plain + kinds.get(_P.KEYWORD_ONLY, []))
        self._needed = {p.name for p in parameters if p.default is _P.empty}
        self._named_only = len(self._names) == len(parameters)
        self._exact = _exact(parameters) if self._named_only else None
        self._fn = fn
        # By annotation; compiled late: until then a module may define what they name.
        self._converters: dict[str, _Convert] | None = None
        self._returns: _Convert | None = None
        self._simple = False
        self._places = {*self._plain, self._star} - {""}  # where a wrapper may put more

    def name(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[Any]]:
        """Return (arguments by name, leading arguments without one), for `message.encode`.

        Raises:
            ArgumentError: the call does not fit the signature, or two values claim one name.
        """
        if self._exact:
            try:
                data = self._exact(*args, **kwargs)
            except TypeError:  # it does not fit: the signature says why
                pass
            else:
                if not (self._wraps and args) or len(data) == len(self._names):
                    return data, []
        return self._bound(args, kwargs)

    def _bound(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[Any]]:
        """As `name`, of any call; slow."""
        try:
            bound = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            if not (self._wraps and _fits(self.signature.bind_partial, args, kwargs)):
                raise ArgumentError(f"{self._title}{self.signature}: {error}") from None
            bound = {}
        if self._wraps and (args or not bound) and not bound.keys() >= self._places:
            return dict(kwargs), list(args)  # what comes before `args` is the wrapper's affair
        data: dict[str, Any] = {}
        for name, value in bound.items():
            if name == self._open:
                taken = {*data, *self._leading, self._star}
                if clash := [key for key in value if key in taken]:
                    raise ArgumentError(
                        f"{self._title}: the keyword {clash[0]!r} of **{name} and the parameter"
                        f" {clash[0]!r} claim one name; rename one of them"
                    )
                data.update(value)
            elif name not in self._leading:
                data[name] = list(value) if name == self._star else value
        return data, [bound[name] for name in self._leading if name in bound]

    def bind(
        self, data: dict[str, Any], leading: Sequence[Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return what to call the function with; `data` becomes its property.

        Raises:
            ArgumentError: the message does not fit, naming the parameters.
        """
        if self._simple and not leading and data.keys() == self._names:
            return (), data
        if self._converters is None:
            self.prepare()
        if self._converters:
            leading = self._convert(self._converters, data, leading)
        if self._named_only and not leading and self._needed <= data.keys() <= self._names:
            return () if len(data) == len(self._names) else [], data
        star = data.pop(self._star, []) if self._star else []
        if type(star) is not list:
            raise ArgumentError(f"the key {self._star!r} holds *{self._star}: give it an array")
        if not isinstance(leading, (list, tuple)):
            raise ArgumentError(f"extra.args is {leading!r}: give an array")
        args = list(leading)
        named = self._plain[max(0, len(args) - len(self._leading)) :]
        if taken := [n for n in self._plain if n in data and n not in named and not self._open]:
            raise ArgumentError(f"extra.args and the key {taken[0]!r} both give {taken[0]!r}")
        if star:  # names before *args can only be given by position
            args += [data.pop(name) for name in named if name in data] + star
        try:
            (self.signature.bind_partial if self._wraps else self.signature.bind)(*args, **data)
        except TypeError as error:
            unnamed = f" and {len(args)} unnamed" if args else ""
            raise ArgumentError(
                f"{self._title}{self.signature}: {error}; the message has {[*data]}{unnamed}"
            ) from None
        return args, data

    def returned(self, value: Any) -> Any:
        """Return a result that travelled as JSON as what the function's annotation says."""
        if self._converters is None:
            self.prepare()
        if self._returns:
            with suppress(Exception):  # the function may return something else than it says
                return self._returns(value)
        return value

    def prepare(self) -> None:
        """Compile what annotations ask for; else the first use does."""
        from .annotations import converter, resolved

        innermost: Any = self._fn
        while inner := getattr(innermost, "__wrapped__", getattr(innermost, "func", None)):
            innermost = inner
        if not hasattr(innermost, "__globals__"):
            innermost = getattr(type(innermost), "__call__", None)  # noqa: B004
        hints = {p.name: p.annotation for p in self.signature.parameters.values()}
        hints["return"] = self.signature.return_annotation
        given = {name: hint for name, hint in hints.items() if hint is not _P.empty}
        found = resolved(given, getattr(innermost, "__globals__", {}))
        compiled = {name: convert for name in found if (convert := converter(found[name]))}
        self._returns = compiled.pop("return", None)
        self._simple = self._named_only and not compiled
        self._converters = compiled

    def _convert(
        self, converters: Mapping[str, _Convert], data: dict[str, Any], leading: Any
    ) -> Sequence[Any]:
        """Convert the named arguments in place; return the leading ones converted."""

        def convert(name: str, value: Any) -> Any:
            found = converters.get(name)
            return _converted(name, found, value) if found else value

        for name, value in data.items():
            if name != self._star:
                data[name] = convert(name if name in self._names else self._open, value)
            elif type(value) is list:
                data[name] = [convert(name, item) for item in value]
        if not isinstance(leading, (list, tuple)):
            return leading  # type: ignore[no-any-return]
        names = [*self._leading, *self._plain]
        names += [self._star] * (len(leading) - len(names))
        return [convert(name, item) for name, item in zip(names, leading)]


def _exact(parameters: Sequence[inspect.Parameter]) -> Callable[..., dict[str, Any]]:
    """Return a function of these parameters that returns the arguments which it is given, by name.

    So the interpreter binds a call, by position or by name, as fast as it can.
    """
    none = "_" * (1 + max((len(p.name) for p in parameters), default=0))  # no parameter's name
    wanted, made = [], []
    for p in parameters:
        if p.kind is _P.KEYWORD_ONLY and "*" not in wanted:
            wanted.append("*")
        needed, pair = p.default is _P.empty, f"{p.name!r}: {p.name}"
        wanted.append(p.name if needed else f"{p.name}={none}")
        made.append(pair if needed else f"**({{}} if {p.name} is {none} else {{{pair}}})")
    source = f"lambda {', '.join(wanted)}: {{{', '.join(made)}}}"
    return eval(source, {none: object()})  # type: ignore[no-any-return]


def _signature(fn: Callable[..., Any], skip: int) -> tuple[inspect.Signature, bool]:
    """Return what a call of `fn` must fit, and whether a wrapper may add to it.

    A wrapper that takes `*args`, after no or the same first parameters, passes on what its function
    takes, and what a call lacks it may give, also before what it was given by position: that has a
    name only if no place is left. Of any other wrapper its own parameters count.
    """
    inner = own = inspect.signature(fn)
    with suppress(ValueError):  # written in C: it takes what its function takes
        own = inspect.signature(fn, follow_wrapped=False)
    given, taken = list(inner.parameters.values()), list(own.parameters.values())
    first = [p.name for p in taken if p.kind <= _P.POSITIONAL_OR_KEYWORD]
    wraps = own != inner and any(p.kind is _P.VAR_POSITIONAL for p in taken)
    if not wraps or first != [p.name for p in given[: len(first)]]:
        return inner.replace(parameters=taken[skip:]), False
    more = [p for p in taken if p.kind is _P.KEYWORD_ONLY and p.name not in inner.parameters]
    given = sorted(given + more, key=lambda p: p.kind)
    return inner.replace(parameters=given[skip:]), True


def _fits(bind: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    try:
        bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _converted(name: str, convert: Callable[[Any], Any], value: Any) -> Any:
    try:
        return convert(value)
    except Exception as error:
        raise ArgumentError(f"parameter {name!r} of {value!r}: {error}") from None


def unbound(*_: object) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """Bind nothing: for plans whose messages are not to be decoded here."""
    raise TypeError("no task")


def elsewhere(*args: Any, **kwargs: Any) -> Any:
    """Stand for a function that this process does not have."""
    raise UnknownTask("this task is known by name only; its function is not here")


class Unnamed:
    """The binding of a task whose function is elsewhere: positional arguments stay so."""

    def name(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[Any]]:
        """As `Binding.name`, without a signature to check against."""
        return dict(kwargs), list(args)

    def returned(self, value: Any) -> Any:
        """As `Binding.returned`: nothing is known of it."""
        return value

    def prepare(self) -> None:
        """As `Binding.prepare`: there is nothing to compile."""

    def bind(
        self, data: dict[str, Any], leading: Sequence[Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """As `Binding.bind`."""
        return leading, data
