"""The consumer: wait -> fetch -> open -> judge -> pace -> submit. One thread per queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from ..contracts import (
    Broker,
    Capability,
    Codec,
    Delivery,
    Gate,
    Job,
    Plan,
    Pool,
    Report,
    ResultStore,
    Valve,
)  # fmt: skip
from ..errors import Unavailable
from ..listeners import Listeners
from ..marking import Marking
from ..message import FLAT
from ..outcomes import Lost, Outcome, Requeue
from .early import Early
from .gates import Answers, Gates
from .grants import Share
from .isolation import Isolation
from .kinds import Kinds
from .lease import Keeper
from .outage import Outage
from .outbox import Outbox
from .overload import Overload
from .pacing import pace
from .prefetch import Prefetch, horizon_of
from .publisher import place_of
from .resolving import Resolving
from .room import Room
from .served import Served

__all__ = ["Consumer"]
IDLE = 5.0  # the longest wait, within a third of a lease; only a safety net
STALL = 0.2  # no slot has ended for so long: waiting jobs are given back
MAX_BYTES = 1 << 20
MOST = 1000  # messages a fetch may ask for
FEW = 8  # after fewer that were all there was, another fetch would most often find nothing
GRACE = 30.0  # seconds that a pause leaves to what is acknowledged and waits for a slot


class Consumer:
    """Feeds one pool from one queue.

    `fetched` is written by the consumer thread only, `settled` by the outbox only; held is the
    difference, and never above `hard`.
    """

    _asked = _sends = False  # it is known what the queue can do; it lacks PULL
    _fed = False  # the broker may have sent what fetch has not handed out
    report: Report | None = None

    def __init__(
        self,
        broker: Broker,
        queue: str,
        pool: Pool,
        *,
        valve: Valve | None = None,
        gates: Sequence[Gate] = (),
        codecs: Sequence[Codec] = (FLAT,),
        results: ResultStore | None = None,
        lease: float = 15.0,
        ceiling: int = 500,
        overload: Callable[[], None] = lambda: None,
        listeners: Listeners | None = None,
        able: Callable[[], Capability] | None = None,
    ) -> None:
        self.queue, self.pool, self._listeners = queue, pool, listeners or Listeners()
        self._served = Served(queue, codecs)
        self.plans, self._valve = self._served.plans, valve
        self._prefetch = Prefetch(horizon_of(broker), ceiling)
        self._able = able or (lambda: broker.capabilities_of(queue))
        self._isolation = Isolation(pool.size, queue)
        self._kinds, self._depth, self.hard = Kinds(pool), 0, pool.size + 2 * ceiling
        self.fetched = self.most_held = self._ended = 0
        self._ended_at, self._fetching, self._idle = 0.0, False, min(IDLE, lease / 3)
        self._outage, self._overload = Outage(queue), Overload(queue, overload)
        self._stopping, self._resumed = threading.Event(), threading.Event()
        self._resumed.set()
        self._room, self._hurried, self.resolving = Room(), False, Resolving()
        self.subscription = sub = broker.subscribe(queue, lease=lease)
        self._share = Share(pool, ceiling, self._in_pool, self.held, self._room.made, sub.wake)
        self.keeper = Keeper(self.subscription, lease, lambda: pool.alive(lease))
        self._gates = Gates(gates, self.keeper, pool)
        given = broker, sub, results, self.keeper, self._share.made, listeners
        self.outbox = self._served.owner = Outbox(*given, place=place_of(broker), slots=pool.size)
        self.marking = Marking(queue, lease, self.outbox, self.keeper.acked)
        self._early = early = Early(sub, self.keeper, self.marking, self._answer)
        told = self._served.open, self._take_in, self._room_ahead, self._outage.failed, self.rouse
        self._following = self.outbox.ways.following.join(pool, early, *told)
        self._thread = threading.Thread(target=self._loop, name=f"fsdf-{queue}", daemon=True)

    def add(self, plan: Plan) -> None:
        """Serve one more task; also while running."""
        plan = self._listeners.hear(plan)
        plan = self.report.watch(plan) if self.report else plan
        if plan.early:
            self.keeper.tend = self.marking.tend
        self._gates.add(plan.gate)
        self._served.add(plan)

    def start(self) -> None:
        """Begin to fetch."""
        self._share.join()
        self._thread.start()

    def held(self) -> int:
        """Count the messages that are leased to us."""
        return self.fetched - self.outbox.settled

    def _in_pool(self) -> int:
        return self.fetched - self.outbox.last_ended() - self.resolving.aside()

    def at_rest(self) -> int | None:
        """Count what we have had; None while we have, or take, some. Twice the same: none since."""
        return None if self._fetching or self._following.leader or self.held() else self.fetched

    def pause(self) -> None:
        """Fetch no more and give back what has not started."""
        self._resumed.clear()
        self.rouse()

    def resume(self) -> None:
        """Fetch again."""
        self._resumed.set()

    def quit(self) -> None:
        """End the fetching, and give back what has not started. Blocks for a round trip."""
        self._stopping.set()
        self._resumed.set()
        self.rouse()
        if self._thread.is_alive():
            self._thread.join()
        self._share.leave()
        self._hand_over(self._early.give_up())
        self.withdraw()
        self.resolving.close()

    def disown(self) -> None:
        """Pause for good: in a forked child what we hold is the parent's.

        There is no thread of ours, but under a hub there are copies of our greenlets.
        """
        self._resumed = threading.Event()  # a new one: the lock of the other may be held
        self._share.disown()
        self._early.disown()
        self.outbox.disown()
        self.resolving = Resolving()

    def hurry(self) -> None:
        """Cut a patient `drained` short, now or later."""
        self._hurried = True
        self._room.rouse()

    def drained(self, timeout: float, *, patient: bool = True) -> bool:
        """Block until no run of ours is in the pool, at most `timeout` seconds. After `quit`."""
        return self._room.drained(self._runs, timeout, lambda: self._hurried and patient)

    def _runs(self) -> bool:
        return self.outbox.last_ended() < self.fetched

    def rouse(self) -> None:
        """End the wait of its thread. Any thread; blocks for a round trip at most."""
        self._room.rouse()
        with suppress(Unavailable):  # then its wait has ended, too
            self.subscription.wake()

    def _loop(self) -> None:
        empty = False  # the last fetch found nothing, or the last few
        while not self._stopping.is_set():
            try:
                if not self._asked:
                    self._learn()
                elif self._early.group:  # not answered
                    self._hand_over(self._early.acknowledge())
                elif self.marking.lapsed:
                    self._adopt()
                elif self.resolving.answered:
                    self._admit_again(self.resolving.release())
                elif not self._resumed.is_set():
                    self.withdraw()
                    if not self._resumed.wait(GRACE):
                        self.withdraw(acked=True)
                        self._resumed.wait()
                elif self._early:
                    self._advance()
                elif empty:
                    empty = False  # whatever becomes of the wait: a server may refuse that alone
                    empty = self._await()
                elif limit := self._permits():
                    empty = self._fetch(limit)
            except Exception as error:  # a loop's edge
                self._share.rest()
                self._stopping.wait(self._outage.failed(error))

    def _learn(self) -> None:
        """Ask what the queue can do, which may be less than its tasks need. Blocks."""
        can = self._able()
        self.keeper.timed, self.outbox.counted = Capability.TIMED in can, Capability.COUNTED in can
        self._asked, self._sends = True, Capability.PULL not in can

    def _fetch(self, limit: int) -> bool:
        """Take up to `limit` messages; say whether to wait for the next ones."""
        self._fetching, self._fed = True, self._sends
        try:
            return self._take(self.subscription.fetch(limit, MAX_BYTES))
        finally:
            self._fetching = False
            self._share.took(0)

    def _await(self) -> bool:
        """Wait, and take what comes if our room is known before; say whether to wait again."""
        waiting, deliveries = self.pool.waiting(), None
        patience = STALL if waiting else self._idle
        if self._valve or not self._share.grants.alone:
            self._share.rest()
            self.subscription.wait(patience)
        elif limit := self._permits():
            deliveries = self._following.fetch_next(limit, MAX_BYTES, patience)
        self._outage.over()
        if not deliveries:
            self._withdraw_stalled()
        elif not waiting:
            self._ended_at = time.monotonic()  # no stall has begun before
        return deliveries is not None and self._take(deliveries)

    def _take(self, deliveries: Sequence[Delivery]) -> bool:
        if deliveries:
            self._admit(deliveries)
        self._outage.fetched(bool(deliveries))
        return len(deliveries) < FEW and (not deliveries or self.subscription.emptied)

    def _permits(self) -> int:
        """Return how many messages to lease now; when none, wait for a reason to ask again."""
        self._depth = depth = self._prefetch.depth(self.outbox.last_ended(), time.monotonic())
        if (space := self._space(depth)) <= 0:
            self._park_while(lambda: self._space(depth) <= 0)
            return 0
        if self._valve:
            space, again = self._valve.permits(space, time.monotonic())
            if not space:
                self._rest(fully=again >= STALL)
                self._stopping.wait(again)
        return min(space, MOST)

    def _space(self, depth: int) -> int:
        """How many more we may hold: by the pool's slots, and by what is not yet settled."""
        if self._overload.lasts(self.pool.abandoned(), self.pool.spare):
            return 0
        held, worth = self.held(), depth // 4  # fewer are not worth a round trip
        space = min(self.pool.size + depth - self._in_pool(), self.hard - held)
        if self._isolation.most:  # what goes back is still ours until that is settled
            now, worth = time.monotonic(), 0
            space = min(space, self._isolation.space(held, self.keeper.held, now))
        if self._kinds.scarce:
            space, worth = min(space, self._kinds.space(depth)), 0
        return self._share.ask(space, worth, depth)

    def _advance(self) -> None:
        """Acknowledge what the pool has room for, and hand it over; wait when there is none."""
        wanted = self.pool.ahead(self._early.line[0])
        ahead = self._prefetch.ahead(self.outbox.last_ended(), time.monotonic(), wanted)
        worth = min(ahead // 4, len(self._early) - 1)
        if self._room_ahead(ahead) <= worth:
            return self._park_while(lambda: self._room_ahead(ahead) <= worth)
        self._early.choose(self._room_ahead(ahead))
        return self._hand_over(self._early.acknowledge())

    def _room_ahead(self, ahead: int) -> int:
        """How many more the pool may have. A valve has counted already what is fetched."""
        if self._valve:
            return len(self._early)
        room = self.pool.size + ahead - self._in_pool() + len(self._early)
        return min(room, self._kinds.leading(self._early.line, ahead))

    def _hand_over(self, jobs: Sequence[Job]) -> None:
        if self._valve:
            self._give_back(pace(jobs, self._valve, self.pool.submit, self._holds))
        elif jobs:
            self._following.submit(jobs)

    def _holds(self, seconds: float) -> bool:
        """Wait; say whether no run is to start any more."""
        return self._stopping.wait(seconds) or not self._resumed.is_set()

    def _park_while(self, full: Callable[[], bool]) -> None:
        """Park until the outbox has stored something, or a stall has to be looked at."""
        patience = STALL if self._fed or self._early or self.pool.waiting() else IDLE
        self._room.wait_while(lambda: full() and not self._stopping.is_set(), patience)
        self._withdraw_stalled(self._fed)

    def _withdraw_stalled(self, fed: bool = False) -> None:
        """Give waiting jobs to other workers when our slots are all in long runs."""
        ended, now = self.outbox.last_ended(), time.monotonic()
        for job, outcome in self._gates.look_again(self._early.line, now):
            self._answer(job, outcome)
        waits = bool(self._early or self.pool.waiting())
        if ended != self._ended or not (fed or waits):
            self._ended, self._ended_at = ended, now
        elif now - self._ended_at >= STALL:
            self._prefetch.forget()
            self.withdraw() if waits else self._rest()

    def withdraw(self, *, acked: bool = False) -> None:
        """Give back what has not started; `acked`: publish again what nobody leases, too."""
        self._rest()
        self._give_back([*self._early.clear(), *self.resolving.withdraw()])
        self._give_back(self.pool.withdraw(self.hard, self.outbox, acked=acked))

    def _rest(self, *, fully: bool = True) -> None:
        """Hold no grant; `fully`: nor anything that fetch has not handed out."""
        self._share.rest()
        if fully and self._fed:
            self._fed = False
            with suppress(Unavailable):  # then it goes back by itself
                self.subscription.rest()

    def _give_back(self, jobs: Collection[Job]) -> None:
        for job in jobs:
            self._answer(job, Requeue())
        self._prefetch.skip(len(jobs))

    def _adopt(self) -> None:
        """End what a worker that is gone has left."""
        jobs = self.marking.adopt(self.plans, self._served.any, lost := Lost(1))
        self.fetched += len(jobs)
        for job in jobs:
            self._answer(job, lost)

    def _answer(self, job: Job, outcome: Outcome) -> None:
        job.outcome = outcome
        self.outbox.put(job)

    def _admit_again(self, jobs: Sequence[Job]) -> None:
        """Read messages once more, as if they had just come; but not what is lost by now."""
        self._give_back(lost := self.keeper.lost.intersection(jobs))
        jobs = [job for job in jobs if job not in lost]
        self._fetching, self.fetched = True, self.fetched - len(jobs)
        try:
            self._admit([job.delivery for job in jobs])
        finally:
            self.keeper.drop(jobs)
            self._fetching = False

    def _admit(self, deliveries: Sequence[Delivery]) -> None:
        self._take_in(*self._served.open(deliveries))

    def _take_in(self, jobs: list[Job], answers: Answers, acknowledged: bool = False) -> None:
        others, count = [job for job, _ in answers], len(jobs) + len(answers)
        if not acknowledged:
            self.keeper.held.update(jobs, others)
        waiting = self.resolving.sift(answers)
        self._served.suspect(waiting)
        in_pool = self.fetched - self.outbox.last_ended()
        self.fetched += count
        more = not (self._valve or self._served.early or self.subscription.emptied)
        self._share.took(count, more)
        self.most_held = max(self.most_held, self.held())
        if self.report:
            self.report.fetched(jobs)
        self._listeners.emit_received(jobs, others)
        try:
            self._gates.judge(jobs, answers, self.subscription)
        except Exception:
            self._give_back([*jobs, *waiting])
            raise
        finally:
            for job, answer in answers:
                self._answer(job, answer)
        if self._served.suspicious or self._isolation.most:
            self._served.suspicious = False
            _, back = self._isolation.split([*jobs, *waiting], in_pool, time.monotonic())
            self._give_back(back)
            jobs, waiting = ([job for job in g if job not in back] for g in (jobs, waiting))
        self._give_back(self._kinds.take_surplus(jobs, self._depth))
        self._place(jobs, waiting)

    def _place(self, jobs: Sequence[Job], waiting: Sequence[Job]) -> None:
        """Let messages start, and others wait until somebody knows their names."""
        if self._stopping.is_set() or not self._resumed.is_set():  # since we fetched, or waited
            return self._give_back([*jobs, *waiting])
        self.resolving.hold(waiting)
        if self._served.early:
            return self._early.line.extend(jobs)
        return self._hand_over(jobs)
