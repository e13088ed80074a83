"""The bytes of results: JSON as kombu writes it, compressed where the settings say so. Pure."""

from __future__ import annotations

import math
from typing import Any

import orjson
from kombu.compression import compress, decompress

__all__ = ["MAGIC", "PLAIN", "compressed", "decompressed", "json_of"]
# Before a compressed payload, then the content type and a zero byte: no serializer begins so.
MAGIC = b"\x00celery-compressed\x00"
PLAIN = frozenset({str, int, bool, type(None)})
_TEXT = frozenset({str})


def compressed(payload: str | bytes, compression: str) -> bytes:
    """Return a payload that says itself how it is compressed."""
    body, content_type = compress(payload, compression)
    return b"\x00".join([MAGIC[:-1], content_type.encode(), body])


def decompressed(payload: Any) -> Any:
    """Return a payload as it was before `compressed`; others as they are."""
    if isinstance(payload, memoryview):
        payload = payload.tobytes()
    if not isinstance(payload, (bytes, bytearray)) or not payload.startswith(MAGIC):
        return payload
    content_type, _, body = payload[len(MAGIC) :].partition(b"\x00")
    return decompress(body, content_type.decode())


def json_of(value: Any) -> bytes | None:
    """Return the JSON of a plain value; None where kombu's encoder has to say what it is."""
    try:
        return orjson.dumps(value) if _is_plain(value) else None
    except (TypeError, ValueError, RecursionError):  # beyond 64 bits, a lone surrogate, too deep
        return None


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind in PLAIN:
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        value = value.values()
    elif kind is not list and kind is not tuple:
        return False
    return all(map(_is_plain, [item for item in value if type(item) not in PLAIN]))
