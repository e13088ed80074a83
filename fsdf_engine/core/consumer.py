"""The consumer: wait -> fetch -> decode -> judge -> pace -> submit. One thread per queue."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from ..contracts import Broker, Delivery, Gate, Job, Plan, Pool, Report, ResultStore, Valve
from ..errors import Unavailable
from ..message import Undecodable, decode, new_id
from ..outcomes import Invalid, Lost, Outcome, Requeue, Unknown, text_of
from .ending import POISON
from .isolation import ORDINARY, Isolation
from .lease import Keeper
from .listeners import Listeners
from .outbox import Outbox
from .prefetch import Prefetch
from .publisher import place_of

__all__ = ["Consumer"]
log = logging.getLogger("fsdf.consumer")
IDLE = 5.0  # the longest wait; only a safety net
STALL = 0.2  # no slot has ended for so long: waiting jobs are given back
MAX_BYTES = 1 << 20
MOST = 1000  # messages a fetch may ask for
FEW = 8  # after fewer that were all there was, another fetch would most often find nothing
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


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
        self._any = Plan("", queue, None, None, _unbound)  # of messages without a known task
        self._valve, self._gates = valve, gates
        self._prefetch = Prefetch(ceiling=ceiling)
        self._isolation, self._suspicious = Isolation(pool.size), False
        self.hard = pool.size + 2 * ceiling
        self.fetched = self.most_held = 0
        self._ended, self._ended_at = 0, 0.0
        self._failures, self._fetching = 0, False
        self._overload, self._overloaded = overload, False
        self._stopping, self._resumed = threading.Event(), threading.Event()
        self._resumed.set()
        self._parked, self._room, self._hurried = False, threading.Event(), False
        self.subscription = broker.subscribe(queue, lease=lease)
        self.keeper = Keeper(self.subscription, lease, lambda: pool.alive(lease))
        place, services = place_of(broker), (broker, self.subscription, results, self.keeper)
        self.outbox = Outbox(*services, self._make_room, listeners, place=place, slots=pool.size)
        self._thread = threading.Thread(target=self._loop, name=f"fsdf-{queue}", daemon=True)

    def add(self, plan: Plan) -> None:
        """Serve one more task; also while running."""
        plan = self.report.watch(plan) if self.report else plan
        self._plans[plan.name] = plan
        self._only = plan if len(self._plans) == 1 and not plan.name else None
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
        self._withdraw()

    def disown(self) -> None:
        """Pause for good: in a forked child what we hold is the parent's.

        There is no thread of ours, but under a hub there are copies of our greenlets.
        """
        self._resumed = threading.Event()  # a new one: the lock of the other may be held
        self.outbox.disown()

    def hurry(self) -> None:
        """Cut a patient `drained` short, now or later."""
        self._hurried = True
        self._room.set()

    def drained(self, timeout: float, *, patient: bool = True) -> bool:
        """Block until no run of ours is in the pool, at most `timeout` seconds. After `quit`."""
        deadline = time.monotonic() + timeout
        while self.outbox.last_ended() < self.fetched and not (self._hurried and patient):
            self._parked = True
            if self.outbox.last_ended() >= self.fetched:
                break
            if not self._room.wait(max(0.0, deadline - time.monotonic())):
                return self.outbox.last_ended() >= self.fetched
            self._room.clear()
        return self.outbox.last_ended() >= self.fetched

    def _rouse(self) -> None:
        self._room.set()
        with suppress(Unavailable):  # then its wait has ended, too
            self.subscription.wake()

    def _loop(self) -> None:
        empty = False  # the last fetch found nothing, or the last few
        while not self._stopping.is_set():
            try:
                if not self._resumed.is_set():
                    self._withdraw()
                    self._resumed.wait()
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
            self._wait_for_space(depth, worth)
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

    def _wait_for_space(self, depth: int, worth: int) -> None:
        """Park until the outbox has stored something, or a stall has to be looked at."""
        self._parked = True  # before looking again: the outbox changes its counts, then looks here
        if self._space(depth) <= worth and not self._stopping.is_set():
            self._room.wait(STALL if self.pool.waiting() else IDLE)
        self._parked = False
        self._room.clear()
        self._withdraw_stalled()

    def _make_room(self) -> None:
        if self._parked:
            self._parked = False
            self._room.set()

    def _withdraw_stalled(self) -> None:
        """Give waiting jobs to other workers when our slots are all in long runs."""
        ended, now = self.outbox.last_ended(), time.monotonic()
        if ended != self._ended or not self.pool.waiting():
            self._ended, self._ended_at = ended, now
        elif now - self._ended_at >= STALL:
            self._prefetch.forget()
            self._withdraw()

    def _withdraw(self) -> None:
        self._give_back(self.pool.withdraw(self.hard, self.outbox))

    def _give_back(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._answer(job, Requeue())
        self._prefetch.skip(len(jobs))

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
            for gate in self._gates:
                outcomes = gate.judge(jobs, time.time())
                answers += [(job, o) for job, o in zip(jobs, outcomes) if o is not None]
                jobs = [job for job, o in zip(jobs, outcomes) if o is None]
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
        elif self._valve:
            self._pace(jobs, self._valve)
        elif jobs:
            self.pool.submit(jobs)

    def _read(self, job: Job, delivery: Delivery) -> Outcome | None:
        """Decode and bind into `job`; an outcome when it must not run."""
        job.plan, job.extra, job.claims = self._any, {}, None
        job.published_at, job.acked, job.pushes, job.attempt = delivery.published_at, False, None, 0
        job.id = f"{self.queue}:{delivery.id}" if delivery.id else new_id()
        try:
            job.data, extra = data, _ = decode(delivery.body)
            if extra:
                job.extra = extra
                job.id = str(extra.get("task_id") or job.id)
                job.published_at = float(extra.get("publish_time", job.published_at))
                if job.published_at - job.published_at != 0.0:  # not finite: no age to judge
                    raise ValueError(f"extra.publish_time is {job.published_at}")
                if not 0 <= (attempt := int(extra.get("attempt", 0))) < 1 << 31:
                    raise ValueError(f"extra.attempt is {attempt}")
                job.attempt = attempt
            plan = self._plans.get(extra["task"]) if "task" in extra else self._only
            if plan is None:
                return Unknown(str(extra.get("task", "")))
            job.plan = plan
            if plan.timeout:
                job.claims = [None]
            job.args, job.kwargs = plan.bind(data, extra.get("args", ()))
        except BaseException as error:  # also what conversions of the user's raise
            if isinstance(error, Undecodable):  # who waits for it shall learn of it
                job.extra, job.id = error.extra, str(error.extra.get("task_id") or job.id)
            return Invalid(f"{type(error).__name__}: {text_of(error)}")
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

    def _pace(self, jobs: list[Job], valve: Valve) -> None:
        """Submit each job at its instant. Blocks, for as long as the valve leases ahead."""
        due: list[Job] = []
        for n, job in enumerate(jobs):
            now = time.monotonic()
            [at] = valve.starts(1, now)
            if at > now:
                if due:
                    self.pool.submit(due)
                    due = []
                if self._stopping.wait(at - now) or not self._resumed.is_set():
                    return self._give_back(jobs[n:])
            due.append(job)
        if due:
            self.pool.submit(due)
        return None
