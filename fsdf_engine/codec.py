"""JSON, and the values that JSON lacks: they travel in the typed form that kombu's JSON uses.

    {"__type__": "datetime", "__value__": "2026-01-31T12:00:00+00:00"}

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

__all__ = ["dumps", "loads", "plain", "typed"]

_PLAIN = frozenset({str, int, float, bool, type(None)})
_MARK = b'"__type__"'
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
    return _revive(value) if mark in body else value


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
        return {_key(key): plain(item) for key, item in value.items()}
    return _typed_value(value)


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
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (str, int, float)):  # a subclass travels as what it is
        base: type = next(t for t in (bool, int, float, str) if isinstance(value, t))
        return base.__str__(value) if base is str else plain(base(value))
    if isinstance(value, list):
        return [plain(item) for item in value]
    raise ArgumentError(
        f"a {type(value).__name__} has no JSON form; send its parts, e.g. an id or a dict"
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
    "set": set,
}


def _revive(value: Any) -> Any:
    if type(value) is list:
        return [_revive(item) for item in value]
    if type(value) is not dict:
        return value
    if value.keys() == {"__type__", "__value__"} and (decode := _DECODERS.get(value["__type__"])):
        return decode(_revive(value["__value__"]))
    return {key: _revive(item) for key, item in value.items()}


def typed(annotation: Any) -> Callable[[Any], Any] | None:
    """Return what turns a JSON value into `annotation`'s type; None where JSON's type will do."""
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, enum.Enum):
        return lambda v: v if isinstance(v, annotation) else annotation(v)
    if dataclasses.is_dataclass(annotation):
        return lambda v: annotation(**v) if isinstance(v, dict) else v
    if annotation in _FROM_TEXT or annotation is set:
        decode, wire = _DECODERS[_ENCODERS[annotation][0]], list if annotation is set else str
        return lambda v: decode(v) if isinstance(v, wire) else v
    return None


_FROM_TEXT = _ENCODERS.keys() - {datetime.timedelta, bytearray, set, frozenset}
