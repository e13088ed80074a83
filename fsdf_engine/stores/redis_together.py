"""The steps of a small flush in one round trip, where messages and results are in one Redis.

They may be in different databases of it. One script publishes, stores results and marks, and
acknowledges. It stops at the first step that the server refuses: what has to be done in order stays
in order, and a process that is killed has taken all the steps or none.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from ..brokers.redis_ack import AckSubscription
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

__all__ = ["TOGETHER", "AtOnce", "together"]

# KEYS: those of a consumer's queue (`redis_ack_scripts`), a queue to publish to, those of `put` and
# of `write`. ARGV: the databases of messages and of results, '' if that is one; the number of keys
# of `put`; a new batch and its lease, '' to follow nothing, and two signs; then, each after their
# number, bodies, what `acknowledge` is told, `put`, and one more mark; then what `write` is. Reply:
# how many of these steps are done, what `write` and `acknowledge` have returned; and, if the one
# body that was published is alone in line, and so leased, how many of the signs there are: -1 if
# there are none and it is not leased but taken, as the last mark is put. Marks belong to the step
# of the results. O(messages).
TOGETHER = Script(
    ACKING
    + PUTTING
    + WRITING
    + """
local at = 7
local function some(list, count, last)
    local found = {}
    for i = at + 1, last or at + count do found[#found + 1] = list[i] end
    at = at + (count or 0)
    return found
end
local function counted()
    at = at + 1
    return some(ARGV, tonumber(ARGV[at]))
end
local function go_to(database)
    if database ~= '' then call('SELECT', database) end
end
local bodies, leases, marks, early = counted(), counted(), counted(), counted()
local told = some(ARGV, nil, #ARGV)
at = 22
local marked, foreseen = some(KEYS, tonumber(ARGV[3])), some(KEYS, #early > 0 and 2 or 0)
local keys, done, older, lost = some(KEYS, nil, #KEYS), 0, {}, {}
pcall(function() -- what is refused ends it, and is found out by who takes that step again
    go_to(ARGV[1])
    if #bodies > 0 then call('LPUSH', KEYS[22], unpack(bodies)) end
    done = 1
    if #keys > 0 or #marks > 0 then
        go_to(ARGV[2])
        if #keys > 0 then older = write(keys, told) end
        if #marks > 0 then put(marked, marks) end
        go_to(ARGV[1])
    end
    done = 2
    if #leases > 0 then lost = acknowledge(leases) end
    done = 3
end)
if done == 3 and #older == 0 and ARGV[4] ~= '' then
    local time = call('TIME')
    local now = time[1] + time[2] / 1e6
    if call('LLEN', KEYS[22]) == 1 and call('EXISTS', KEYS[2], unpack(KEYS, 8, 19)) == 0
      and call('ZCOUNT', KEYS[3], '-inf', now) == 0 and call('ZCOUNT', KEYS[20], '-inf', now) == 0
    then
        local signs = call('EXISTS', ARGV[6], ARGV[7])
        if #early > 0 and signs == 0 then
            go_to(ARGV[2])
            put(foreseen, early)
            go_to(ARGV[1])
            call('RPOP', KEYS[22])
            return {done, older, lost, -1}
        end
        call('HSET', ARGV[4], '\\1', call('RPOP', KEYS[22]))
        call('ZADD', KEYS[4], now + ARGV[5], ARGV[4])
        return {done, older, lost, signs}
    end
end
return {done, older, lost}
"""
)


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
        sub, bodies = self._subscription, [message.body for message in publishes]
        acks, owners = sub.acknowledging(leases)
        keys, said = self._store.told(records) if records else ([], [])
        marked, put = self._put(marks)
        queue = publishes[0].queue if publishes else sub.keys[0]
        follow = follow if len(bodies) == 1 and queue == sub.keys[0] else None
        batch = sub.batch() if follow else ""
        mark = follow.foresee(sub.followed(batch, bodies[0])) if follow else None
        seen, ahead = self._put([mark] if mark else ())
        started = time.monotonic()
        command = TOGETHER(
            (*sub.keys, queue, *marked, *seen, *keys), *self._databases, len(marked),
            batch, sub.lease, *SIGN_KEYS,
            len(bodies), *bodies, len(acks), *acks, len(put), *put, len(ahead), *ahead, *said,
        )  # fmt: skip
        [reply] = self._exchanged(command, publishes, batch)
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

    def _put(self, marks: Sequence[Mark]) -> tuple[list[str], list[Any]]:
        return self._store.marks().told(marks) if marks else ([], [])

    def _exchanged(self, command: Command, publishes: Sequence[Outgoing], batch: str) -> list[Any]:
        try:
            return self._store.connection().exchange([command])
        except Unavailable as error:
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
