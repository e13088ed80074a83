"""How messages meet a function's parameters: compiled once per task. Pure."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import codec
from ..errors import ArgumentError, UnknownTask

__all__ = ["Binding", "Unnamed", "elsewhere"]

_P = inspect.Parameter


class Binding:
    """A function's parameters: `name` for publishers, `bind` for workers."""

    def __init__(self, fn: Callable[..., Any], *, skip: int = 0) -> None:
        """`skip` leading parameters are given by the engine (a bound task's `self`)."""
        signature = inspect.signature(fn)
        parameters = list(signature.parameters.values())[skip:]
        self.signature = signature.replace(parameters=parameters)
        self._title = getattr(fn, "__name__", repr(fn))
        kinds: dict[Any, list[str]] = {}
        for p in parameters:
            kinds.setdefault(p.kind, []).append(p.name)
        self._leading = kinds.get(_P.POSITIONAL_ONLY, [])
        self._plain = kinds.get(_P.POSITIONAL_OR_KEYWORD, [])
        self._star = kinds.get(_P.VAR_POSITIONAL, [""])[0]
        self._open = kinds.get(_P.VAR_KEYWORD, [""])[0]
        self._names = frozenset(self._plain + kinds.get(_P.KEYWORD_ONLY, []))
        self._plain_only = len(self._plain) == len(parameters)
        self._count = len(self._plain)
        self._converters = _converters(fn, self._names)
        self._simple = self._plain_only and not self._converters

    def name(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[Any]]:
        """Return (arguments by name, leading arguments without one), for `message.encode`.

        Raises:
            ArgumentError: the call does not fit the signature, or two values claim one name.
        """
        if self._plain_only and not kwargs and len(args) == self._count:
            return dict(zip(self._plain, args)), []
        try:
            bound = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise ArgumentError(f"{self._title}{self.signature}: {error}") from None
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
        for name, convert in self._converters.items():
            if name in data:
                data[name] = _converted(name, convert, data[name])
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
            self.signature.bind(*args, **data)
        except TypeError as error:
            unnamed = f" and {len(args)} unnamed" if args else ""
            raise ArgumentError(
                f"{self._title}{self.signature}: {error}; the message has {[*data]}{unnamed}"
            ) from None
        return args, data


def _converters(fn: Callable[..., Any], names: frozenset[str]) -> dict[str, Callable[[Any], Any]]:
    """Return what to decode by annotation; unresolvable annotations are left alone."""
    try:
        hints = typing.get_type_hints(fn)
    except Exception:  # a forward reference to a name that exists only while type checking
        return {}
    found = ((name, codec.typed(hints.get(name))) for name in names)
    return {name: convert for name, convert in found if convert}


def _converted(name: str, convert: Callable[[Any], Any], value: Any) -> Any:
    try:
        return convert(value)
    except Exception as error:
        raise ArgumentError(f"parameter {name!r} of {value!r}: {error}") from None


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

    def bind(
        self, data: dict[str, Any], leading: Sequence[Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """As `Binding.bind`."""
        return leading, data
