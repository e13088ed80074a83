"""What an inbox of Redis is told of ends: many in one message, of former versions each in its own.

No other channel is published on than those of inboxes, and of the keys that are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from struct import Struct

from ..contracts import Record

__all__ = ["is_inbox", "noticed", "notices"]

# In the middle stands what it takes: of former versions a 4, one notice in a message; else many.
_MANY = "8"
_INBOX = re.compile(r"fsdf:inbox:[0-9a-f]{12}([0-9a-f])[0-9a-f]{19}")
_SIZES = Struct(">II")  # of a notice: of the id and of the body, which follow
_LARGE = 1 << 20  # bytes of notices, about, that leave as one message


def notices(records: Iterable[Record]) -> list[tuple[str, bytes]]:
    """Return channels of inboxes, each with what is to be published there."""
    told: dict[str, list[Record]] = {}
    for r in records:
        if r.reply and r.final:
            told.setdefault(r.reply, []).append(r)
    found: list[tuple[str, bytes]] = []
    for reply, ended in told.items():
        if (takes := _taken(reply)) == _MANY:
            found += [(reply, said) for said in _together(ended)]
        elif takes:
            for r in ended:
                id = r.id.encode()
                found.append((reply, b"%d\n%b%b" % (len(id), id, r.body)))
    return found


def is_inbox(reply: str) -> bool:
    """Say whether a reply is the address of an inbox: it comes from a message."""
    return bool(_taken(reply))


@lru_cache(1024)  # those who wait at present
def _taken(reply: str) -> str:
    """Return a digit that says what an address takes; "" for what is no inbox."""
    address = _INBOX.fullmatch(reply)
    return address[1] if address else ""


def _together(ended: Sequence[Record]) -> Iterator[bytes]:
    """Yield messages that tell of all of them."""
    parts: list[bytes] = []
    for r in ended:
        id, body = r.id.encode(), r.body
        parts += (_SIZES.pack(len(id), len(body)), id, body)
    each = 3 * (1 + len(ended) * _LARGE // sum(map(len, parts)))
    for at in range(0, len(parts), each):
        yield b"".join(parts[at : at + each])


def noticed(said: bytes) -> Iterator[tuple[str, bytes]]:
    """Split what came to an inbox; of a former worker that is one notice, with the id's length."""
    if said[0]:  # a digit: what is written now begins with a length below 1 << 24
        size, _, rest = said.partition(b"\n")
        yield rest[: int(size)].decode(), rest[int(size) :]
        return
    at, end = 0, len(said)
    while at < end:
        id, body = _SIZES.unpack_from(said, at)
        at += _SIZES.size + id + body
        yield said[at - body - id : at - body].decode(), said[at - body : at]
