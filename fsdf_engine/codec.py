"""JSON, and the values that JSON lacks: they travel in the typed form that kombu's JSON uses.

    {"__type__": "datetime", "__value__": "2026-01-31T12:00:00+00:00"}

A plain object that has exactly these two keys travels as its pairs, so that it comes back as it was
from any parser, also one that revives from the inside out:

    {"__type__": "object", "__value__": [["__type__", "datetime"], ["__value__", "tomorrow"]]}

Plain values take the fast path; a container is looked at once, at C speed where it is flat.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from .errors import ArgumentError

__all__ = ["dumps", "from_text", "hashable", "loads", "plain", "revive"]

_PLAIN = frozenset({str, int, float, bool, type(None)})
_MARK = b'"__type__"'
_KEYS = {"__type__", "__value__"}
_BIG = 1 << 63


def dumps(value: Any) -> bytes:
    """Return the JSON of a plain value.

    Raises:
        TypeError: something in it is not plain; pass it through `plain` first.
    """
    return orjson.dumps(value, None, orjson.OPT_PASSTHROUGH_SUBCLASS)


def loads(body: bytes | str) -> Any:
    """Parse JSON, and revive typed values.

    Raises:
        ValueError: not JSON.
    """
    value = orjson.loads(body)
    mark: Any = _MARK if isinstance(body, bytes) else _MARK.decode()
    return revive(value) if mark in body else value


def plain(value: Any) -> Any:
    """Return `value` with everything that JSON lacks in its typed form.

    Raises:
        ArgumentError: a value has no JSON form.
    """
    kind = type(value)
    if kind in _PLAIN:
        if kind is int and not -_BIG <= value < 2 * _BIG:
            raise ArgumentError(f"{value} is beyond 64 bits, which JSON parsers do not agree on")
        if kind is float and not math.isfinite(value):
            raise ArgumentError(f"{value} has no JSON form; send None or a string")
        return value
    if kind is list or kind is tuple:
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return _escaped({_key(key): plain(item) for key, item in value.items()})
    return _typed_value(value)


def _escaped(value: dict[str, Any]) -> dict[str, Any]:
    """Return a plain object in a form that is not taken for a typed value."""
    if len(value) != 2 or value.keys() != _KEYS:
        return value
    return {"__type__": "object", "__value__": [list(pair) for pair in value.items()]}


def _key(key: Any) -> str:
    if type(key) is not str:
        raise ArgumentError(f"the key {key!r} of a mapping is not a string")
    return key


def _typed_value(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return plain(value.value)
    for kind, (name, encode) in _ENCODERS.items():
        if isinstance(value, kind):
            return {"__type__": name, "__value__": encode(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _escaped({f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)})
    if isinstance(value, (str, int, float)):  # a subclass travels as what it is
        base: type = next(t for t in (bool, int, float, str) if isinstance(value, t))
        return base.__str__(value) if base is str else plain(base(value))
    if isinstance(value, list):
        return [plain(item) for item in value]
    raise ArgumentError(
        f"a value of type {type(value).__name__} has no JSON form; send its parts, such as an id"
    )


_ENCODERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime.datetime: ("datetime", datetime.datetime.isoformat),
    datetime.date: ("date", datetime.date.isoformat),
    datetime.time: ("time", datetime.time.isoformat),
    datetime.timedelta: ("timedelta", lambda v: v.total_seconds()),
    decimal.Decimal: ("decimal", str),
    uuid.UUID: ("uuid", lambda v: {"hex": v.hex}),
    bytes: ("base64", lambda v: base64.b64encode(v).decode()),
    bytearray: ("base64", lambda v: base64.b64encode(v).decode()),
    set: ("set", lambda v: [plain(item) for item in v]),
    frozenset: ("set", lambda v: [plain(item) for item in v]),
}
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.datetime.fromisoformat,
    "date": lambda v: datetime.date.fromisoformat(v[:10]),
    "time": datetime.time.fromisoformat,
    "timedelta": lambda v: datetime.timedelta(seconds=v),
    "decimal": decimal.Decimal,
    "uuid": lambda v: uuid.UUID(**v) if isinstance(v, dict) else uuid.UUID(v),
    "base64": base64.b64decode,
    "bytes": lambda v: v.encode(),
    "set": lambda v: _set_of(v),
    "object": dict,
}


def revive(value: Any) -> Any:
    """Return a parsed JSON value with its typed values as what they stand for.

    Raises:
        Exception: of any class, for a typed value that its type cannot have.
    """
    if type(value) is list:
        return [revive(item) for item in value]
    if type(value) is not dict:
        return value
    if len(value) == 2 and value.keys() == _KEYS and (decode := _decoder(value["__type__"])):
        return decode(revive(value["__value__"]))
    return {key: revive(item) for key, item in value.items()}


def _decoder(kind: Any) -> Callable[[Any], Any] | None:
    return _DECODERS.get(kind) if type(kind) is str else None


def _set_of(items: list[Any]) -> set[Any] | list[Any]:
    """Return a set; what arrives as list or set inside was hashable, so a tuple or frozenset.

    A list, where something in it was of a class that only an annotation can tell.
    """
    try:
        return set(map(hashable, items))
    except TypeError:
        return items


def hashable(value: Any) -> Any:
    """Return a list as a tuple and a set as a frozenset; others as they are."""
    if type(value) is list:
        return tuple(map(hashable, value))
    return frozenset(value) if type(value) is set else value


def from_text(kind: type) -> Callable[[Any], Any] | None:
    """Return what makes a value of this type of the text that a plain client sends; or None."""
    return _DECODERS[_ENCODERS[kind][0]] if kind in _FROM_TEXT else None


_FROM_TEXT = _ENCODERS.keys() - {datetime.timedelta, bytearray, set, frozenset}
