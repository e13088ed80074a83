"""Many new results in Redis by plain commands: half of what each costs the server in a script.

They are stored in one round trip, which also asks who listens. Who does is told in a second one;
where nobody does, as when those who pushed have gone, there is none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from math import inf
from typing import Any

from ..brokers.redis_connection import Connection, Sent
from ..contracts import Record
from .redis_notices import is_inbox, notices

__all__ = ["Bulk", "head_of"]

_CHANNELS = re.compile(rb"pubsub_channels:(\d+)")
_RECENT = 1.0  # seconds for which a count of all channels is good enough


def head_of(record: Record) -> bytes:
    """Return what stands before a record's body, see `redis`."""
    r = record
    return _head_of(r.sends, r.deliveries, r.attempt, r.final, r.origin)


@lru_cache(64)  # what was pushed together has the same
def _head_of(sends: int, deliveries: int, attempt: int, final: bool, origin: str) -> bytes:
    head = f"{deliveries}{'F' if final else 'P'}"
    if attempt > 0:
        head = "0" * min(attempt, 64) + head
    if sends or origin:
        head = f"{sends}.{head}{origin}\n"
    return head.encode()


class Bulk:
    """Writes what is new, with `prefix` before each id. Any thread.

    With `fence`, which stands before the whole key, it is that of a layout, see `redis`.
    """

    def __init__(self, prefix: str, fence: str = "") -> None:
        self._prefix, self._fence = prefix, fence
        self._pattern = re.sub(r"([][*?^\\])", r"\\\1", prefix) + "*"
        self._channels, self._counted = inf, 0.0  # of the server; when that was

    def write(
        self, connection: Connection, life: str, records: Sequence[Record]
    ) -> Sequence[Record]:
        """Store those of which nothing is kept, then tell of them; return the others.

        `life` is in milliseconds, "" for ever. Who subscribes later than we ask finds the record.
        """
        asked, crowded = self._questions(connection, records)
        sets, each = self._sets(life, records), 2 if self._fence else 1
        replies = connection.call(sets, *asked, more=each * len(records) - 1)
        done, (patterns, keys, *inboxes) = replies[: -len(asked)], replies[-len(asked) :]
        stored, new, old = done[each - 1 :: each], records, list[Record]()
        if not all(stored):
            new = [r for r, is_new in zip(records, stored) if is_new]
            old = [r for r, is_new in zip(records, stored) if not is_new]
        then: list[Sent] = []
        if each > 1 and not all(done[::2]):  # of a value that another program has deleted
            stale = [r for r, *is_new in zip(records, done[::2], stored) if is_new == [None, b"OK"]]
            words = ("PX", life) if life else ()
            then = [("SET", self._fence + self._prefix + r.id, head_of(r), *words) for r in stale]
        heard = {name.decode() for counts in inboxes for name in _heard(counts)}
        told = [r for r in new if patterns or r.reply in heard] if patterns or heard else ()
        then += [("PUBLISH", *notice) for notice in notices(told)]
        then += self._told_by_key(new, bool(patterns), _heard(keys) if crowded else set(keys))
        if then:
            connection.call(*then)
        return old

    def _told_by_key(
        self, records: Sequence[Record], all_keys: bool, heard: Collection[bytes]
    ) -> Iterator[Sent]:
        for r in records if all_keys or heard else ():
            key = (self._prefix + r.id).encode()
            if (r.final or self._fence) and (all_keys or key in heard):
                yield "PUBLISH", key, r.body if self._fence else head_of(r) + r.body

    def _questions(
        self, connection: Connection, records: Sequence[Record]
    ) -> tuple[Sequence[Sent], bool]:
        """Return the commands that ask who listens: to patterns, to keys, to inboxes.

        Few channels are looked through by the server faster than many names are looked up. True
        says that these are many.
        """
        if (now := time.monotonic()) >= self._counted + _RECENT:
            self._counted = now
            [info] = connection.exchange([("INFO", "stats")])
            found = _CHANNELS.search(info) if isinstance(info, bytes) else None
            self._channels = int(found[1]) if found else inf
        asked: list[Sent] = [("PUBSUB", "NUMPAT")]
        if crowded := self._channels > len(records):
            asked.append(("PUBSUB", "NUMSUB", *[self._prefix + r.id for r in records]))
        else:
            asked.append(("PUBSUB", "CHANNELS", self._pattern))
        if inboxes := [reply for reply in {r.reply for r in records} if is_inbox(reply)]:
            asked.append(("PUBSUB", "NUMSUB", *inboxes))
        return asked, crowded

    def _sets(self, life: str, records: Iterable[Record]) -> bytes:
        """Return commands that set those not there; the client packs them for much longer.

        A fence is set first: who finds a value finds what to compare with.
        """
        prefix, fence = self._prefix.encode(), self._fence.encode()
        begin, end = _around(life)
        parts, before, value, last = list[bytes](), b"", b"", None
        ahead = behind = b""
        for r in records:
            id, body = r.id.encode(), r.body
            alike = len(id), len(body), r.origin, r.sends, r.deliveries, r.attempt, r.final
            if alike != last:  # what was pushed together seldom differs
                head, last = head_of(r), alike
                size = len(prefix) + len(id)
                before = b"%b%d\r\n%b" % (begin, size, prefix)
                if fence:
                    ahead = b"%b%d\r\n%b%b" % (begin, len(fence) + size, fence, prefix)
                    behind, head = b"\r\n$%d\r\n%b%b" % (len(head), head, end), b""
                value = b"\r\n$%d\r\n%b" % (len(head) + len(body), head)
            if fence:
                parts += (ahead, id, behind)
            parts += (before, id, value, body, end)
        return b"".join(parts)


def _around(life: str) -> tuple[bytes, bytes]:
    """Return what stands before the length of a key, and after a value."""
    words = ["NX", *(("PX", life) if life else ())]
    end = "".join(f"\r\n${len(word)}\r\n{word}" for word in words).encode() + b"\r\n"
    return b"*%d\r\n$3\r\nSET\r\n$" % (3 + len(words)), end


def _heard(counts: Sequence[Any]) -> Collection[bytes]:
    """Return which channels somebody listens to, of pairs of a name and a number."""
    return {name for name, count in zip(counts[::2], counts[1::2]) if count}
