"""The frames of a message that is published by AMQP 0-9-1, as bytes: what clients make of objects.

Of a header only the properties that we write are known here; with others a client has to write it.
Pure. https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, 4.2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .amqp_client import Publishing

__all__ = [
    "BODY", "END", "FRAME_OVERHEAD", "HEADER", "ID", "METHOD", "MODE", "OFTEN", "PRIORITY", "TIME",
    "bodies_of", "header_of",
]  # fmt: skip
METHOD, HEADER, BODY, END = 1, 2, 3, 0xCE  # types of frames, and their last byte
MODE, PRIORITY, ID, TIME = 0x1000, 0x0800, 0x0080, 0x0040  # properties of Basic
OURS = {"delivery_mode", "priority", "message_id", "timestamp"}
FRAME_OVERHEAD = 8  # bytes
OFTEN = 1 << 16  # bytes after which what is published begins to leave


def header_of(channel: int, item: Publishing) -> bytes | None:
    """Return the frame of a message's header, if it has no properties but ours.

    Raises:
        Exception: of any kind; it cannot be written.
    """
    told = item.properties
    id = told["message_id"].encode()
    if len(id) > 255 or not told.keys() <= OURS:
        return None
    flags, first, last = ID, b"", b""
    if "delivery_mode" in told:
        flags |= MODE
        first = bytes((told["delivery_mode"],))
    if "priority" in told:
        flags |= PRIORITY
        first += bytes((told["priority"],))
    if "timestamp" in told:
        flags |= TIME
        last = struct.pack(">Q", told["timestamp"])
    length = 15 + len(first) + len(id) + len(last)
    head = struct.pack(">BHIHHQH", HEADER, channel, length, 60, 0, len(item.body), flags)
    return b"%b%b%c%b%b\xce" % (head, first, len(id), id, last)


def bodies_of(channel: int, body: bytes, frame_max: int) -> Iterator[bytes]:
    """Yield the frames of a body; none is longer than `frame_max` bytes."""
    size = frame_max - FRAME_OVERHEAD
    for at in range(0, len(body), size):
        part = body[at : at + size]
        yield b"%b%b\xce" % (struct.pack(">BHI", BODY, channel, len(part)), part)
