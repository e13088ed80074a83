"""The steps of a small flush in one round trip, where messages and results are in one Redis.

They may be in different databases of it. One script publishes, stores results and marks, and
acknowledges. It stops at the first step that the server refuses: what has to be done in order stays
in order, and a process that is killed has taken all the steps or none.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from ..brokers.redis_ack import AckSubscription, Owners
from ..brokers.redis_ack_scripts import ACKING
from ..brokers.redis_connection import Command, Script, failure
from ..brokers.redis_queue import SIGN_KEYS
from ..brokers.redis_route import Route
from ..contracts import Follow, LeaseId, Mark, Outgoing, Record, Subscription
from ..errors import PublishError, Unanswered, Unavailable
from .redis_marks import PUTTING
from .redis_write import WRITING

if TYPE_CHECKING:
    from .redis import RedisStore

__all__ = ["SCRIPTS", "AtOnce", "together"]

# KEYS: the two of leases, the queue to publish to, those of `put`, those of one more mark, those of
# `write`; and, to follow, all of a consumer's queue (`redis_ack_scripts`). ARGV: the databases of
# messages and of results, '' if that is one; how many bodies there are, arguments of `acknowledge`,
# marks, and marks more; '1' to follow; then these, and those of `write`; and, to follow, a new
# batch, its lease, and two signs. Reply: how many of the steps are done, what `write` and
# `acknowledge` have returned; and, if the one body would be alone in line, and is leased instead,
# how many of the signs there are: -1 if there are none and it is not even leased, as the last mark
# is put. Marks belong to the step of the results. O(messages).
TOGETHER = Script(
    "local leases_of, leases_below = KEYS[1], KEYS[2]\n"
    + ACKING
    + PUTTING
    + WRITING
    + """
local bodies, leases, marks, early = ARGV[3] + 0, ARGV[4] + 0, ARGV[5] + 0, ARGV[6] + 0
local follows = ARGV[7] == '1'
local acks = 8 + bodies
local puts = acks + leases
local foreseen = puts + 4 * marks
local told, to = foreseen + 4 * early, follows and #ARGV - 4 or #ARGV
local seen = marks > 0 and 5 + marks or 4 -- the first key of one more mark
local first, last = early > 0 and seen + 2 or seen, follows and #KEYS - 21 or #KEYS
local done, older, lost = 0, {}, {}
local database = ARGV[2]
local function go_to(other)
    if other ~= database then call('SELECT', other) end
    database = other
end
local function is_alone() -- where nothing is delayed one command tells
    local line = #KEYS - 21
    local sides = {KEYS[3], KEYS[line + 2], unpack(KEYS, line + 8, line + 19)}
    if call('EXISTS', KEYS[line + 3], KEYS[line + 20], unpack(sides)) == 0 then return true end
    if call('EXISTS', unpack(sides)) > 0 then return false end
    local time = call('TIME')
    local now = time[1] + time[2] / 1e6
    return call('ZCOUNT', KEYS[line + 3], '-inf', now) == 0
        and call('ZCOUNT', KEYS[line + 20], '-inf', now) == 0
end
local alone, signs
pcall(function() -- what is refused ends it, and is found out by who takes that step again
    if bodies > 0 then
        go_to(ARGV[1])
        alone = follows and is_alone()
        if alone then signs = call('EXISTS', ARGV[to + 3], ARGV[to + 4])
        else call('LPUSH', KEYS[3], unpack(ARGV, 8, acks - 1)) end
    end
    done = 1
    if last >= first or marks > 0 then
        go_to(ARGV[2])
        if last >= first then older = write(first, last, told, to) end
        if marks > 0 then put(4, seen - 1, puts) end
    end
    done = 2
    if leases > 0 then
        go_to(ARGV[1])
        lost = acknowledge(acks, puts - 1)
    end
    done = 3
end)
if not alone then return {done, older, lost} end
if done == 3 and #older == 0 and early > 0 and signs == 0 then
    go_to(ARGV[2])
    put(seen, seen + 1, foreseen)
    return {done, older, lost, -1}
end
go_to(ARGV[1])
if done < 3 or #older > 0 then
    call('LPUSH', KEYS[3], ARGV[8])
    return {done, older, lost}
end
local time, batch, lease = call('TIME'), ARGV[to + 1], ARGV[to + 2]
call('HSET', batch, '\\1', ARGV[8])
call('ZADD', KEYS[1], time[1] + time[2] / 1e6 + lease, batch)
return {done, older, lost, signs}
"""
)

# The same of marks and leases alone, in less of the server's time. KEYS: the two of leases, those
# of `put`. ARGV: the databases, what `put` is told, and `acknowledge`.
MARKED = Script(
    "local leases_of, leases_below = KEYS[1], KEYS[2]\n"
    + ACKING
    + PUTTING
    + """
local done, lost, marks = 1, {}, #KEYS - 3
pcall(function()
    put(3, #KEYS, 3)
    if ARGV[1] ~= '' then redis.call('SELECT', ARGV[1]) end
    done = 2
    lost = acknowledge(3 + 4 * marks, #ARGV)
    done = 3
end)
return {done, lost}
"""
)
SCRIPTS = (TOGETHER, MARKED)


def together(store: RedisStore, subscription: Subscription) -> AtOnce | None:
    """Return what takes the steps of a consumer's flush at once, if it can."""
    if not isinstance(subscription, AckSubscription):
        return None
    here, there = Route(store.url, ""), Route(subscription.url, "")
    if not here.is_beside(there):
        return None
    apart = here.database != there.database
    return AtOnce(store, subscription, (there.database, here.database) if apart else ("", ""))


class AtOnce:
    """See `ResultStore.together`."""

    def __init__(
        self, store: RedisStore, subscription: AckSubscription, databases: tuple[Any, Any]
    ) -> None:
        self._store, self._subscription, self._databases = store, subscription, databases

    def __call__(
        self,
        publishes: Sequence[Outgoing],
        records: Sequence[Record],
        leases: Sequence[LeaseId],
        marks: Sequence[Mark] = (),
        *,
        follow: Follow | None = None,
    ) -> tuple[int, Collection[LeaseId]]:
        if not _are_plain(publishes) or not _are_alike(records):
            return 0, ()
        sub = self._subscription
        acks, owners = sub.acknowledging(leases)
        if marks and not (publishes or records):
            return self._marked(marks, acks, owners)
        if len(publishes) != 1 or publishes[0].queue != sub.keys[0]:
            follow = None
        batch = sub.batch() if follow else ""
        command = self._command(publishes, records, acks, marks, follow, batch)
        started = time.monotonic()
        reply = self._exchanged(command, publishes, batch)
        if failure(reply):  # of the whole; each step's own is told by how far it came
            return 0, ()
        done, older, lost, *signs = reply
        if follow and signs:
            sub.unsigned = signs[0] <= 0
            if signs[0] < 0 or sub.is_in_time(batch, started):
                follow.take(acknowledged=signs[0] < 0)
        if older:
            try:
                self._store.tell([r for n, r in enumerate(records) if n not in older])
            except Unavailable:
                done = 1  # the records are written, and told of, once more
        return done, sub.named(owners, lost)

    def _command(
        self,
        publishes: Sequence[Outgoing],
        records: Sequence[Record],
        acks: Sequence[Any],
        marks: Sequence[Mark],
        follow: Follow | None,
        batch: str,
    ) -> Command:
        sub, bodies = self._subscription, [message.body for message in publishes]
        mark = follow.foresee(sub.followed(batch, bodies[0])) if follow else None
        marked, put = self._put(marks)
        seen, ahead = self._put([mark] if mark else ())
        keys, said = self._store.told(records) if records else ([], [])
        queue = publishes[0].queue if publishes else ""
        line, leased = (sub.keys, (batch, sub.lease, *SIGN_KEYS)) if follow else ((), ())
        counts = len(bodies), len(acks), len(marks), int(bool(mark)), int(bool(follow))
        return TOGETHER(
            (sub.keys[3], sub.keys[20], queue, *marked, *seen, *keys, *line),
            *self._databases, *counts, *bodies, *acks, *put, *ahead, *said, *leased,
        )  # fmt: skip

    def _marked(
        self, marks: Sequence[Mark], acks: Sequence[Any], owners: Owners
    ) -> tuple[int, Collection[LeaseId]]:
        sub, (marked, put) = self._subscription, self._put(marks)
        keys = sub.keys[3], sub.keys[20], *marked
        reply = self._exchanged(MARKED(keys, *self._databases, *put, *acks))
        done, lost = (0, ()) if failure(reply) else reply
        return done, sub.named(owners, lost)

    def _put(self, marks: Sequence[Mark]) -> tuple[list[str], list[Any]]:
        return self._store.marks().told(marks) if marks else ([], [])

    def _exchanged(
        self, command: Command, publishes: Sequence[Outgoing] = (), batch: str = ""
    ) -> Any:
        marks = self._store.marks()
        ended = marks.ended()
        more = [marks.deletion(ended)] if ended else []
        try:
            return self._store.connection().exchange([command, *more])[0]
        except Unavailable as error:
            marks.delete_soon(ended)
            self._subscription.missed(batch)
            if publishes and isinstance(error, Unanswered):
                raise PublishError((), publishes) from error
            raise


def _are_plain(publishes: Sequence[Outgoing]) -> bool:
    """Say whether one command stores these messages."""
    return all(
        m.queue == publishes[0].queue and not (m.priority or m.delay or m.not_before)
        for m in publishes
    )


def _are_alike(records: Sequence[Record]) -> bool:
    """Say whether one call stores these records."""
    return all(r.layout == records[0].layout and r.expires == records[0].expires for r in records)
