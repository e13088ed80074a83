"""Groups in this process; they end with it."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Sequence

from ..contracts import Claim, Completed, Group, GroupStore, Member
from .group_form import check_size, fitting, ordered, tell_unknown

__all__ = ["MemoryGroups"]


class _Kept:
    """One group; under the lock of its store."""

    def __init__(self, group: Group) -> None:
        self.group, self.size = group, group.size
        self.members: dict[str, Member] = {}
        self.grown: dict[str, int] = {}
        self.bytes = self.claims = 0
        self.at = self.until = self.ends = 0.0  # completed; claimed until; forgotten
        self.place = self.holder = ""
        self.closed = False

    def begins_anew(self, run: str) -> bool:
        """Say whether it is complete or over, and is opened for another time."""
        return bool(run) and run != self.group.run and (self.closed or bool(self.at))

    def is_complete(self) -> bool:
        """Say whether every member has ended."""
        known = self.size is not None and len(self.members) >= self.size + sum(self.grown.values())
        return not self.closed and (bool(self.at) or known)


class MemoryGroups(GroupStore):
    """A dict under a lock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock, self._clock = threading.Lock(), clock
        self._kept: dict[str, _Kept] = {}
        self._ends: list[tuple[float, str]] = []  # heap; a changed group has stale ones

    def open(self, groups: Sequence[Group], claim: Claim) -> Sequence[Completed]:
        with self._lock:
            self._expire()
            for group in groups:
                check_size(group.size or 0)
                kept = self._kept.get(group.id)
                if kept is None or kept.begins_anew(group.run):
                    self._kept[group.id] = kept = _Kept(group)
                    self._renew(kept)
            return self._claimed([group.id for group in groups], claim)

    def add(self, members: Sequence[Member], claim: Claim) -> Sequence[Completed]:
        with self._lock:
            self._expire()
            for member in members:
                if (kept := self._kept.get(member.group)) and not kept.closed:
                    if not kept.at and member.id not in kept.members:
                        kept.members[member.id] = fitted = fitting(member, kept.bytes)
                        kept.bytes += len(member.body) if fitted is member else 0
                    self._renew(kept)
            named = dict.fromkeys(member.group for member in members)
            unknown = named.keys() - self._kept.keys()
            completed = self._claimed(list(named), claim)
        tell_unknown(unknown)
        return completed

    def set_size(self, id: str, size: int, claim: Claim) -> Sequence[Completed]:
        check_size(size)
        with self._lock:
            self._expire()
            if kept := self._kept.get(id):
                kept.size = size if kept.size is None else kept.size
            completed = self._claimed([id], claim)
        tell_unknown([] if kept else [id])
        return completed

    def grow(self, id: str, by: int, key: str) -> bool:
        check_size(by, 1)
        with self._lock:
            self._expire()
            kept = self._kept.get(id)
            if kept is None or (key not in kept.grown and (kept.closed or kept.at)):
                return False
            kept.grown.setdefault(key, by)
            self._renew(kept)
            return True

    def claim(self, claim: Claim, limit: int = 100) -> Sequence[Completed]:
        with self._lock:
            self._expire()
            now = self._clock()
            ended = [
                id for id, kept in self._kept.items()
                if kept.at and not kept.closed and kept.until <= now and kept.place == claim.place
            ]  # fmt: skip
            return self._claimed(ended[:limit], claim)

    def close(self, ids: Sequence[str], claim: Claim) -> None:
        with self._lock:
            for id in ids:
                if (kept := self._kept.get(id)) and kept.holder == claim.holder:
                    kept.closed = True
                    kept.members = {}
                    self._renew(kept)

    def _renew(self, kept: _Kept) -> None:
        kept.ends = self._clock() + kept.group.expires
        heapq.heappush(self._ends, (kept.ends, kept.group.id))

    def _expire(self) -> None:
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            _, id = heapq.heappop(self._ends)
            if id in self._kept and self._kept[id].ends <= now:
                del self._kept[id]

    def _claimed(self, ids: Sequence[str], claim: Claim) -> list[Completed]:
        now, found = self._clock(), []
        for id in ids:
            kept = self._kept.get(id)
            if kept is None or not kept.is_complete():
                continue
            if kept.until > now and kept.holder != claim.holder:
                continue
            kept.at = kept.at or time.time()
            kept.claims += 1
            kept.place, kept.holder, kept.until = claim.place, claim.holder, now + claim.lease
            self._renew(kept)
            group, members = kept.group, ordered(kept.members.values())
            facts = id, kept.at, kept.claims, group.expires
            found.append(Completed(*facts, group.body, group.on_failure, members))
        return found
