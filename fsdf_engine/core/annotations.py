"""What makes of a JSON value what an annotation says: compiled once per task. Pure.

What has another type than its annotation's JSON form is left as it is: annotations are no checks.
"""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import enum
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from .. import codec

__all__ = ["converter", "resolved"]

Convert = Callable[[Any], Any]


class _Form(NamedTuple):
    """The JSON values that belong to an annotation, and what makes its own of them, if need be."""

    takes: type | tuple[type, ...] = object
    build: Convert | None = None


_ANY = _Form()
_ALIAS: Any = getattr(typing, "TypeAliasType", ())  # of `type X = ...`, from Python 3.12
_JSON: dict[type, Any] = {kind: kind for kind in (bool, int, str, list, dict, type(None))}
_JSON[float] = (int, float)
_LISTS = {list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable}
_SETS = {set: set, frozenset: frozenset, abc.Set: set, abc.MutableSet: set}
_MAPPINGS = {dict, abc.Mapping, abc.MutableMapping}


def resolved(annotations: Mapping[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    """Return those that can be resolved: a name may exist only while types are checked."""
    found: dict[str, Any] = {}
    for name, annotation in annotations.items():
        with suppress(Exception):
            holder = types.SimpleNamespace(__annotations__={name: annotation})
            found |= typing.get_type_hints(holder, names)
    return found


def converter(annotation: Any) -> Convert | None:
    """Return what makes the annotated type of a JSON value; None where JSON's own will do."""
    takes, build = _form(annotation)
    return build and (lambda value: build(value) if isinstance(value, takes) else value)


def _form(annotation: Any) -> _Form:
    while inner := getattr(annotation, "__supertype__", None):  # NewType
        annotation = inner
    if isinstance(annotation, _ALIAS):
        return _form(annotation.__value__)
    origin, given = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _form(given[0])
    if origin in (typing.Union, types.UnionType):
        return _union([_form(each) for each in given])
    kind = origin or annotation
    return _container(kind, given) or _scalar(kind) if isinstance(kind, type) else _ANY


def _scalar(kind: type) -> _Form:
    if issubclass(kind, enum.Enum):
        return _Form(object, lambda value: _member(kind, value))
    if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        return _object(kind)  # type: ignore[arg-type]
    if decode := codec.from_text(kind):
        return _Form(str, decode)
    return _Form(_JSON.get(kind, object))


def _member(kind: type[enum.Enum], value: Any) -> Any:
    with suppress(ValueError):
        return kind(value)
    for member in kind:  # its value has no JSON form of its own, such as a tuple
        if codec.plain(member.value) == value:
            return member
    return kind(value)


def _container(kind: type, given: tuple[Any, ...]) -> _Form | None:
    inner: list[Any] = [converter(each) for each in given]
    if kind in _LISTS:
        [item] = inner or [None]
        return _Form(list, item and (lambda value: [item(each) for each in value]))
    if kind in _SETS:
        [item], make = inner or [None], _SETS[kind]
        return _Form((list, set), lambda value: make(map(item or codec.hashable, value)))
    if kind is tuple:
        endless = given[1:] == (...,)
        return _Form(
            (list, tuple), lambda value: _tuple(inner[:1] * len(value) if endless else inner, value)
        )
    if kind in _MAPPINGS:
        item = inner[-1] if inner else None
        return _Form(dict, item and (lambda value: {k: item(v) for k, v in value.items()}))
    return None


def _tuple(inner: list[Convert | None], given: Sequence[Any]) -> tuple[Any, ...]:
    value = list(given)
    for place, item in enumerate(inner[: len(value)]):
        if item:
            value[place] = item(value[place])
    return tuple(value)


def _union(forms: list[_Form]) -> _Form:
    """The first that takes the value and can be made of it; what takes any value comes last."""
    forms.sort(key=lambda form: (form == _ANY) - (form.takes is type(None)))
    return (
        _Form(object, lambda value: _first(forms, value)) if any(f.build for f in forms) else _ANY
    )


def _first(forms: list[_Form], value: Any) -> Any:
    failed: Exception | None = None
    for takes, build in forms:
        try:
            if isinstance(value, takes):
                return build(value) if build else value
        except Exception as error:
            failed = failed or error
    if failed:
        raise failed
    return value


@lru_cache(256)
def _object(kind: Any) -> _Form:
    """Of a dataclass or a TypedDict; its fields are compiled when used: they may be of itself."""
    known: Any = () if typing.is_typeddict(kind) else dataclasses.fields(kind)
    unasked = [field.name for field in known if not field.init]
    fields: dict[str, Convert] = {}
    compiled: list[bool] = []

    def build(value: dict[str, Any]) -> Any:
        if not compiled:
            fields.update(_fields(kind))
            compiled.append(True)
        made = {k: fields[k](v) if k in fields else v for k, v in value.items()}
        late = {name: made.pop(name) for name in unasked if name in made}
        result = kind(**made)
        for name, item in late.items():
            object.__setattr__(result, name, item)
        return result

    return _Form(dict, build)


def _fields(kind: Any) -> dict[str, Convert]:
    try:
        hints = typing.get_type_hints(kind)
    except Exception:
        module = sys.modules.get(kind.__module__)
        fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
        given = {field.name: field.type for field in fields} or kind.__annotations__
        hints = resolved(given, dict(vars(module)) if module else {})
    return {name: convert for name, hint in hints.items() if (convert := converter(hint))}
