"""The consumer: wait -> fetch -> open -> judge -> pace -> submit. One thread per queue."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from ..contracts import Broker, Codec, Delivery, Gate, Job, Plan, Pool, Report, ResultStore, Valve
from ..errors import Unavailable
from ..message import FLAT, new_id
from ..outcomes import Invalid, Lost, Outcome, Requeue, Unknown
from .early import Early
from .ending import POISON
from .forms import limit, open_envelope
from .gates import Gates
from .isolation import ORDINARY, Isolation
from .lease import Keeper
from .listeners import Listeners
from .marking import Marking
from .outbox import Outbox
from .pacing import pace
from .prefetch import Prefetch, horizon_of
from .publisher import place_of
from .room import Room

__all__ = ["Consumer"]
log = logging.getLogger("fsdf.consumer")
IDLE = 5.0  # the longest wait; only a safety net
STALL = 0.2  # no slot has ended for so long: waiting jobs are given back
MAX_BYTES = 1 << 20
MOST = 1000  # messages a fetch may ask for
FEW = 8  # after fewer that were all there was, another fetch would most often find nothing
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
GRACE = 30.0  # seconds that a pause leaves to what is acknowledged and waits for a slot


def _unbound(*_: object) -> tuple[Sequence[object], Mapping[str, object]]:
    raise TypeError("no task")


class Consumer:
    """Feeds one pool from one queue.

    `fetched` is written by the consumer thread only, `settled` by the outbox only; held is the
    difference, and never above `hard`.
    """

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
    ) -> None:
        self.queue, self.pool = queue, pool
        self.report: Report | None = None
        self._plans: dict[str, Plan] = {}
        self._only: Plan | None = None
        self._limits = self._acks_ahead = False  # some task has, or wants, them
        self._any = Plan("", queue, None, None, _unbound)  # of messages without a known task
        self._valve, self._codecs = valve, codecs
        self._prefetch = Prefetch(horizon_of(broker), ceiling)
        self._isolation, self._suspicious = Isolation(pool.size), False
        self.hard = pool.size + 2 * ceiling
        self.fetched = self.most_held = 0
        self._ended, self._ended_at = 0, 0.0
        self._failures, self._fetching, self._overloaded = 0, False, False
        self._overload = overload
        self._stopping, self._resumed = threading.Event(), threading.Event()
        self._resumed.set()
        self._room, self._hurried = Room(), False
        self.subscription = broker.subscribe(queue, lease=lease)
        self.keeper = Keeper(self.subscription, lease, lambda: pool.alive(lease))
        self._gates = Gates(gates, self.keeper, pool)
        place, services = place_of(broker), (broker, self.subscription, results, self.keeper)
        self.outbox = Outbox(*services, self._room.made, listeners, place=place, slots=pool.size)
        self.marking = Marking(queue, lease, self.outbox, self.keeper.acked)
        self._early = Early(self.subscription, self.keeper, self.marking, self._answer)
        self._thread = threading.Thread(target=self._loop, name=f"fsdf-{queue}", daemon=True)

    def add(self, plan: Plan) -> None:
        """Serve one more task; also while running."""
        plan = self.report.watch(plan) if self.report else plan
        if plan.early:
            self._acks_ahead, self.keeper.tend = True, self.marking.tend
        self._gates.add(plan.gate)
        self._plans[plan.name] = plan
        self._only = plan if len(self._plans) == 1 and not plan.name else None
        self._limits = any(p.timeout or p.soft for p in self._plans.values())
        sinks = tuple(dict.fromkeys(s for p in self._plans.values() for s in p.sinks))
        self._any = Plan("", self.queue, None, None, _unbound, sinks)

    def start(self) -> None:
        """Begin to fetch."""
        self._thread.start()

    def held(self) -> int:
        """Count the messages that are leased to us."""
        return self.fetched - self.outbox.settled

    def at_rest(self) -> int | None:
        """Return None while we have messages in hand, or are taking some; else how many we had.

        The same number twice says that we had none in between.
        """
        return None if self._fetching or self.held() else self.fetched

    def pause(self) -> None:
        """Fetch no more and give back what has not started."""
        self._resumed.clear()
        self._rouse()

    def resume(self) -> None:
        """Fetch again."""
        self._resumed.set()

    def quit(self) -> None:
        """End the fetching, and give back what has not started. Blocks for a round trip."""
        self._stopping.set()
        self._resumed.set()
        self._rouse()
        if self._thread.is_alive():
            self._thread.join()
        self._hand_over(self._early.give_up())
        self.withdraw()

    def disown(self) -> None:
        """Pause for good: in a forked child what we hold is the parent's.

        There is no thread of ours, but under a hub there are copies of our greenlets.
        """
        self._resumed = threading.Event()  # a new one: the lock of the other may be held
        self._early.disown()
        self.outbox.disown()

    def hurry(self) -> None:
        """Cut a patient `drained` short, now or later."""
        self._hurried = True
        self._room.rouse()

    def drained(self, timeout: float, *, patient: bool = True) -> bool:
        """Block until no run of ours is in the pool, at most `timeout` seconds. After `quit`."""
        deadline = time.monotonic() + timeout
        while (runs := self._runs()) and not (self._hurried and patient):
            if (left := deadline - time.monotonic()) <= 0:
                break
            self._room.wait_while(self._runs, left)
        return not runs

    def _runs(self) -> bool:
        return self.outbox.last_ended() < self.fetched

    def _rouse(self) -> None:
        self._room.rouse()
        with suppress(Unavailable):  # then its wait has ended, too
            self.subscription.wake()

    def _loop(self) -> None:
        empty = False  # the last fetch found nothing, or the last few
        while not self._stopping.is_set():
            try:
                if self._early.group:  # not answered
                    self._hand_over(self._early.acknowledge())
                elif self.marking.lapsed:
                    self._adopt()
                elif not self._resumed.is_set():
                    self.withdraw()
                    if not self._resumed.wait(GRACE):
                        self.withdraw(acked=True)
                        self._resumed.wait()
                elif self._early:
                    self._advance()
                elif empty:
                    empty = False  # whatever becomes of the wait: a server may refuse that alone
                    self.subscription.wait(STALL if self.pool.waiting() else IDLE)
                    self._withdraw_stalled()
                elif limit := self._permits():
                    empty = self._fetch(limit)
                if self._failures and not empty:
                    log.warning("queue %s: the broker answers again", self.queue)
                    self._failures = 0
            except Exception as error:  # a loop's edge
                self._failed(error)

    def _fetch(self, limit: int) -> bool:
        """Take up to `limit` messages; say whether to wait for the next ones."""
        self._fetching = True
        try:
            if deliveries := self.subscription.fetch(limit, MAX_BYTES):
                self._admit(deliveries)
        finally:
            self._fetching = False
        return not deliveries or (len(deliveries) < FEW and self.subscription.emptied)

    def _failed(self, error: Exception) -> None:
        """Log once per outage, and wait a little longer each time."""
        if isinstance(error, Unavailable):
            if not self._failures:
                log.warning("queue %s: cannot fetch, will try again: %s", self.queue, error)
        else:
            log.error("queue %s: the consumer failed and goes on", self.queue, exc_info=error)
        pause = BACKOFF[min(self._failures, len(BACKOFF) - 1)]
        self._failures += 1
        self._stopping.wait(pause)

    def _permits(self) -> int:
        """Return how many messages to lease now; when none, wait for a reason to ask again."""
        depth = self._prefetch.depth(self.outbox.last_ended(), time.monotonic())
        worth = 0 if self._isolation.most else depth // 4  # fewer are not worth a round trip
        space = self._space(depth)
        if space <= worth:
            self._park_while(lambda: self._space(depth) <= worth)
            return 0
        if self._valve:
            space, again = self._valve.permits(space, time.monotonic())
            if not space:
                self._stopping.wait(again)
        return min(space, MOST)

    def _space(self, depth: int) -> int:
        """How many more we may hold: by the pool's slots, and by what is not yet settled."""
        if self.pool.abandoned() > self.pool.size:
            self._tell_overload()
            return 0
        in_pool = self.fetched - self.outbox.last_ended()
        space = min(self.pool.size + depth - in_pool, self.hard - self.held())
        if self._isolation.most:  # what goes back is still ours until that is settled
            held, now = self.held(), time.monotonic()
            return min(space, self._isolation.space(held, self.keeper.held, now))
        return space

    def _tell_overload(self) -> None:
        if not self._overloaded:
            self._overloaded = True
            log.error(
                "queue %s: %d runs outlive their deadline and cannot be ended; nothing more is"
                " fetched until they end; use PROCESSES for such tasks",
                self.queue, self.pool.abandoned(),
            )  # fmt: skip
            self._overload()

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
        in_pool = self.fetched - self.outbox.last_ended() - len(self._early)
        return self.pool.size + ahead - in_pool

    def _hand_over(self, jobs: Sequence[Job]) -> None:
        if self._valve:
            self._give_back(pace(jobs, self._valve, self.pool.submit, self._holds))
        elif jobs:
            self.pool.submit(jobs)

    def _holds(self, seconds: float) -> bool:
        """Wait; say whether no run is to start any more."""
        return self._stopping.wait(seconds) or not self._resumed.is_set()

    def _park_while(self, full: Callable[[], bool]) -> None:
        """Park until the outbox has stored something, or a stall has to be looked at."""
        waiting = self._early or self.pool.waiting()
        self._room.wait_while(
            lambda: full() and not self._stopping.is_set(), STALL if waiting else IDLE
        )
        self._withdraw_stalled()

    def _withdraw_stalled(self) -> None:
        """Give waiting jobs to other workers when our slots are all in long runs."""
        ended, now = self.outbox.last_ended(), time.monotonic()
        for job, outcome in self._gates.look_again(self._early.line, now):
            self._answer(job, outcome)
        if ended != self._ended or not (self._early or self.pool.waiting()):
            self._ended, self._ended_at = ended, now
        elif now - self._ended_at >= STALL:
            self._prefetch.forget()
            self.withdraw()

    def withdraw(self, *, acked: bool = False) -> None:
        """Give back what has not started; `acked`: publish again what nobody leases, too."""
        self._give_back(self._early.clear())
        self._give_back(self.pool.withdraw(self.hard, self.outbox, acked=acked))

    def _give_back(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._answer(job, Requeue())
        self._prefetch.skip(len(jobs))

    def _adopt(self) -> None:
        """End what a worker that is gone has left."""
        jobs = self.marking.adopt(self._plans, self._any, lost := Lost(1))
        self.fetched += len(jobs)
        for job in jobs:
            self._answer(job, lost)

    def _answer(self, job: Job, outcome: Outcome) -> None:
        job.outcome = outcome
        self.outbox.put(job)

    def _admit(self, deliveries: Sequence[Delivery]) -> None:
        jobs: list[Job] = []
        answers: list[tuple[Job, Outcome]] = []
        for delivery in deliveries:
            job = Job()
            job.delivery, job.owner = delivery, self.outbox
            if (outcome := self._read(job, delivery)) is None:
                jobs.append(job)
            else:
                answers.append((job, outcome))
        self.keeper.held.update(jobs, [job for job, _ in answers])
        in_pool = self.fetched - self.outbox.last_ended()
        self.fetched += len(deliveries)
        self.most_held = max(self.most_held, self.held())
        if self.report:
            self.report.fetched(jobs)
        try:
            self._gates.judge(jobs, answers)
        except Exception:
            self._give_back(jobs)
            raise
        finally:
            for job, answer in answers:
                self._answer(job, answer)
        if self._suspicious or self._isolation.most:
            jobs = self._isolate(jobs, in_pool)
        if not self._resumed.is_set():  # paused while we fetched
            self._give_back(jobs)
        elif self._acks_ahead:
            self._early.line.extend(jobs)
        else:
            self._hand_over(jobs)

    def _read(self, job: Job, delivery: Delivery) -> Outcome | None:
        """Open the envelope of `job`; an outcome when it must not run. Runs no user code."""
        job.plan, job.claims, job.acked, job.pushes = self._any, None, False, None
        job.published_at, job.attempt = delivery.published_at, 0
        misread = open_envelope(job, self._codecs)
        extra = job.extra
        if type(id := extra.get("task_id")) is not str or not id:
            id = str(id) if id else f"{self.queue}:{delivery.id}" if delivery.id else new_id()
        job.id = id
        if misread:
            return misread
        at, attempt = extra.get("publish_time", job.published_at), extra.get("attempt", 0)
        if type(at) is not float or type(attempt) is not int:
            try:
                at, attempt = float(at), int(attempt)
            except (TypeError, ValueError, OverflowError):
                attempt = -1
        if not (0 <= attempt < 1 << 31 and at - at == 0.0):  # finite: an age to judge
            told = extra.get("publish_time"), extra.get("attempt")
            return Invalid("extra.publish_time is {!r}, extra.attempt is {!r}".format(*told))
        job.published_at, job.attempt = at, attempt
        name = extra.get("task")
        plan = self._only if name is None else self._plans.get(name) if type(name) is str else None
        if plan is None:
            return Unknown("" if name is None else str(name))
        job.plan = plan
        if (self._limits or "limits" in extra) and (misread := limit(job)):
            return misread
        if delivery.state:
            job.attempt = delivery.state.get("attempt", job.attempt)
        if delivery.deliveries > ORDINARY:
            self._suspicious = True
            return Lost(delivery.deliveries) if delivery.deliveries > POISON else None
        return None

    def _isolate(self, jobs: Sequence[Job], in_pool: int) -> list[Job]:
        """Return what may run now, where something has been lost with its workers often."""
        self._suspicious, before = False, self._isolation.most
        jobs, others = self._isolation.split(jobs, in_pool, time.monotonic())
        if self._isolation.most and not before:
            log.warning(
                "queue %s: messages were lost with their workers again and again; they run in ever"
                " smaller groups, to find which of them ends its worker", self.queue,
            )  # fmt: skip
        self._give_back(others)
        return list(jobs)
