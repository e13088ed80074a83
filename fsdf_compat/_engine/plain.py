"""Values whose JSON by kombu and by orjson is the same, and the text of any that has one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from marshal import dumps as marshalled
from typing import Any

import orjson
from kombu import serialization

__all__ = ["are_plain", "text_of"]
_SCALARS = frozenset({str, int, bool, type(None)})


def text_of(value: Any) -> bytes:
    """Return the JSON text that kombu writes; of plain values orjson's means the same.

    Raises:
        kombu.exceptions.EncodeError: it has none.
    """
    try:
        if are_plain((value,)):
            return orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):  # large numbers, lone surrogates: Python's can
        pass
    text: Any = serialization.dumps(value, "json")[2]
    return text if isinstance(text, bytes) else text.encode()


def are_plain(values: Iterable[Any]) -> bool:
    """Say whether all values are of types that have one JSON form, also those in them.

    Of what orjson refuses it may be said, too.
    """
    for value in values:
        kind = type(value)
        if kind in _SCALARS or (kind is float and value - value == 0.0):
            continue
        if kind not in (dict, list) or (value and not _holds_plain(value)):
            return False
    return True


def _holds_plain(container: Any) -> bool:
    """Say whether what is in a dict or list is plain.

    `marshal` takes builtin types only, and no subclasses; it looks in a fifth of the time. Only
    where a byte could be the end of an infinity or of no number each value is looked at.
    """
    try:
        written = marshalled(container)
    except ValueError:
        return False
    if b"\x7f" in written or b"\xff" in written:
        return _are_exactly_plain((container,))
    return True


def _are_exactly_plain(values: Iterable[Any]) -> bool:
    for value in values:
        kind = type(value)
        if kind in _SCALARS or (kind is float and value - value == 0.0):
            continue
        if kind is dict:
            if value and not _are_exactly_plain(value.values()):  # orjson takes no key but a str
                return False
        elif kind is not list or (value and not _are_exactly_plain(value)):
            return False
    return True
