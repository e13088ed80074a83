"""What the stores of groups share: how a group's messages are kept, and what is told."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence

import orjson

from ..contracts import GroupStore, Member, Outgoing

__all__ = ["check_size", "fitting", "ordered", "packed", "tell_unknown", "too_large", "unpacked"]

_log = logging.getLogger("fsdf.stores")
_FIELDS = ("queue", "id", "headers", "delay", "not_before", "priority", "ttl", "key")


def packed(body: Outgoing, on_failure: Outgoing | None) -> bytes:
    """Return messages as bytes: the head's length, a line feed, the head as JSON, the bodies."""
    messages = [body, on_failure]
    heads = [m and [len(m.body), *(getattr(m, name) for name in _FIELDS)] for m in messages]
    head = orjson.dumps(heads)
    return b"".join((b"%d\n" % len(head), head, *(m.body for m in messages if m)))


def unpacked(kept: bytes) -> tuple[Outgoing, Outgoing | None]:
    """Return the messages that `packed` was given."""
    size, _, rest = kept.partition(b"\n")
    at = int(size)
    messages = []
    for length, *fields in filter(None, orjson.loads(rest[:at])):
        messages.append(Outgoing(body=rest[at : at + length], **dict(zip(_FIELDS, fields))))
        at += length
    return messages[0], messages[1] if len(messages) > 1 else None


def ordered(members: Iterable[Member]) -> Sequence[Member]:
    """Return the members in the order in which a group's message gets them."""
    return sorted(members, key=lambda member: (member.place, member.id))


def fitting(member: Member, before: int) -> Member:
    """Return the member as it is kept beside `before` bytes; Redis decides likewise by itself."""
    if before + len(member.body) <= GroupStore.LARGEST:
        return member
    told = too_large(len(member.body))
    return Member(member.group, member.id, told, True, member.place)


def too_large(size: int | str) -> bytes:
    """Return what is kept of a value that a group has no room for."""
    return b'{"reason":"its value of %b bytes is too large for the group"}' % str(size).encode()


def tell_unknown(ids: Collection[str]) -> None:
    """Log that groups are not there: their life has ended, or they never were."""
    for id in ids:
        _log.warning("no group has this id; what was told of it is ignored", extra={"group": id})


def check_size(size: int, least: int = 0) -> None:
    """Refuse a number of members below `least`.

    Raises:
        ValueError: it is.
    """
    if size < least:
        raise ValueError(f"a group cannot have {size} members; give {least} or more")
