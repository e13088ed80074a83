"""The contract of groups: a message that leaves once all members of a group have ended.

Whoever adds the last member completes the group, and is handed its message: it publishes it, then
closes the group. Who dies in between leaves a claim that ends, and a sweep hands it to another. So
the message leaves at least once, and again under the same id only where a claim ended, or an answer
was lost, between the two. Import from `fsdf_engine.contracts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .messaging import Outgoing

__all__ = ["Claim", "Completed", "Group", "GroupStore", "Member"]


@dataclass(slots=True, eq=False, repr=False)
class Member:
    """An effect: how one member of a group ended; `body` is its value, opaque to the store.

    The first one of (`group`, `id`) counts. `place` orders the members of a group.
    """

    group: str
    id: str
    body: bytes
    failed: bool = False
    place: int = 0


@dataclass(slots=True, eq=False)
class Group:
    """A group to be opened; `size` is how many members it has, None while that is not known.

    `body` is the message to publish when all have ended, `on_failure` perhaps another one for when
    some have failed. `expires` seconds after the last change it is forgotten.

    `run` tells times apart that a group is opened: a group that is complete or over begins anew
    where it is opened with another one, and the same one, as "", leaves it as it is.
    """

    id: str
    body: Outgoing
    size: int | None = None
    on_failure: Outgoing | None = None
    expires: float = field(default=86400.0, kw_only=True)
    run: str = field(default="", kw_only=True)


class Claim(NamedTuple):
    """Who may publish what a call completes: `holder`, for `lease` seconds.

    `place` names the broker that the message goes to: a sweep finds what was completed for it.
    """

    place: str
    holder: str
    lease: float


class Completed(NamedTuple):
    """A group all of whose members have ended, claimed by whoever got this."""

    id: str
    at: float  # Unix seconds by the store's clock; the same for every claim
    claims: int  # how often it has been handed out, from 1
    expires: float
    body: Outgoing
    on_failure: Outgoing | None
    members: Sequence[Member]  # in order of place, then id


class GroupStore(ABC):
    """Keeps groups; part of a result store. All methods may be called by any thread.

    Each call is one round trip (on a cluster one for each shard that it concerns) and atomic for
    each group. A group lives until `expires` seconds have passed since it was opened, or a member
    was added, or it was claimed or closed; one that is closed is remembered for so long. What
    names a group that is not there is logged and has no effect.

    Methods that return `Completed` hand out groups of which every member has ended, and which are
    not closed: to one holder at a time, until its claim ends; to the same holder again at once.
    A completed group takes no more members: what is handed out again is the same.

    Raises:
        Unavailable: nothing is at fault; the same call may be repeated.
    """

    LARGEST = 64 << 20  # bytes of all values of a group; what goes beyond is a failed member's

    @abstractmethod
    def open(self, groups: Sequence[Group], claim: Claim) -> Sequence[Completed]:
        """Store groups; one that is there already stays as it is, unless its `run` is another.

        Those of size 0 are complete.

        Raises:
            ValueError: a size is negative; so does `set_size`.
        """

    @abstractmethod
    def add(self, members: Sequence[Member], claim: Claim) -> Sequence[Completed]:
        """Add ended members, each once: a repeat changes nothing."""

    @abstractmethod
    def set_size(self, id: str, size: int, claim: Claim) -> Sequence[Completed]:
        """Tell how many members a group has; a size that it has already stays."""

    @abstractmethod
    def grow(self, id: str, by: int, key: str) -> bool:
        """Let a group have `by` more members, once for each key; whether its size is known or not.

        False: it is not there, or complete already.

        Raises:
            ValueError: `by` is below 1.
        """

    @abstractmethod
    def claim(self, claim: Claim, limit: int = 100) -> Sequence[Completed]:
        """Hand out groups completed for the place whose claims have ended; O(their members)."""

    @abstractmethod
    def close(self, ids: Sequence[str], claim: Claim) -> None:
        """Let groups that this holder was handed be over: their messages are published.

        Idempotent; what somebody else has been handed since, or what began anew, stays.
        """
