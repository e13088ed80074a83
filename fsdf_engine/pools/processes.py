"""Process pool: the parent holds the leases, children run the code, a killed child harms one run.

One thread of the parent owns everything; it waits on the children's sockets, their deaths and the
next instant at which something may be due. A child gets up to 2 ms of work per hand-off, and a
second hand-off while it does the first, so that it never waits; a long run is handed over alone.
Where it turns out longer than its kind used to be, what waits behind it is taken back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

from ..contracts import Job, Owner, Pool, PoolCapability
from ..core.family import keep_main_file, mask_interrupt, starting
from ..core.slots import checked_size
from ..core.watcher import Watcher
from ..outcomes import Crashed, Failed, Interrupted, Outcome, Requeue, TimedOut
from .backlog import Backlog
from .hand_off import Report, decode_outcome
from .ward import Births, Ward, death, end

__all__ = ["ProcessPool"]
log = logging.getLogger("fsdf.pools")
RESOLVE = "fsdf_engine.engine:resolve_plan"
STUCK = 0.01  # a run this long keeps others from waiting behind it
LOOK = 0.025  # after a hand-off of several jobs: does it get on?
LINGER = 5.0  # a retired child may take so long to exit


class ProcessPool(Pool):
    """Children started as needed, up to `size`; each runs one job at a time.

    `start_method` is spawn, forkserver or fork. `preload` names modules that each child (or the
    fork server, once) imports first. A child is replaced after `max_tasks_per_child` jobs, and
    between runs when its resident memory exceeds `max_memory_per_child` bytes. `resolve` is
    "module:function"; the child calls it with (queue, name) for the task's plan.
    """

    capabilities: ClassVar[PoolCapability] = PoolCapability.KILLS

    def __init__(
        self,
        size: int,
        *,
        start_method: str = "spawn",
        preload: Sequence[str] = (),
        max_tasks_per_child: int = 0,
        max_memory_per_child: int = 0,
        resolve: str = RESOLVE,
    ) -> None:
        self.size, context = checked_size(size), starting(start_method)
        if start_method == "forkserver" and preload:
            context.set_forkserver_preload(["__main__", *preload])
        self._make_ward = partial(
            Ward, context, tuple(preload), resolve, max_tasks_per_child, max_memory_per_child
        )
        keep_main_file()
        self._backlog = Backlog()
        self._opening = threading.Lock()  # of _closing and _thread
        self._wards: list[Ward] = []  # the thread's; replaced, never changed, so others may read
        self._orders: deque[Callable[[], None]] = deque()  # from other threads
        self._births = Births()
        self._closing = False
        self._parked = False
        self._watcher = Watcher()
        self._thread: threading.Thread | None = None

    @classmethod
    def build(cls, size: int, options: Any, modules: Sequence[str] = ()) -> ProcessPool:
        """Make the pool that a task's options describe."""
        return cls(
            size,
            start_method=options.process_start_method or "spawn",
            preload=modules,
            max_tasks_per_child=options.max_tasks_per_child,
            max_memory_per_child=options.max_memory_per_child,
        )

    # ------------------------------------------------------------------ the contract; any thread

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take every job; raises RuntimeError when the pool was closed."""
        with self._opening:
            if self._closing:
                raise RuntimeError("the pool is closed; make another one")
            self._backlog.extend(jobs)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._live, name="fsdf-processes", daemon=True
                )
                self._thread.start()
        if self._parked:
            self._parked = False
            self._watcher.wake()

    def waiting(self) -> int:
        """Count those not handed over, and those that a child has not started."""
        handed = sum(len(ward.jobs) - (ward.current() is not None) for ward in self._wards)
        return len(self._backlog) + max(0, handed)

    def running(self) -> Collection[Job]:
        """Return the jobs that the children have started last and not reported."""
        return [job for ward in self._wards if (job := ward.current())]

    def withdraw(self, limit: int, owner: Owner | None = None) -> Sequence[Job]:
        """Take jobs that were not handed over; what was handed over starts within milliseconds."""
        return self._backlog.withdraw(limit, owner)

    def interrupt(self, job: Job, error: BaseException) -> bool:
        """Kill the child that runs this job; the job ends as failed with this error."""
        if not any(ward.current() is job for ward in self._wards):
            return False
        self._orders.append(partial(self._end_run, job, error))
        self._watcher.wake()
        return True

    def alive(self, within: float) -> bool:
        """False when children can no longer be started, so that other workers get the messages."""
        if self._births.hopeless and not any(ward.ready for ward in self._wards):
            return False
        return self._thread is None or self._thread.is_alive()

    def close(self, grace: float) -> Collection[Job]:
        """Run what waits and end the children; returns what is left after `grace` seconds."""
        with self._opening:
            self._closing = True
            thread = self._thread
        if thread is None:
            return ()
        self._watcher.wake()
        thread.join(grace)
        return [
            *self._backlog.jobs(),
            *(job for ward in self._wards for job in [*ward.jobs.values()]),
        ]

    def processes(self) -> Sequence[int]:
        """Return the ids of the children."""
        return [ward.pid for ward in self._wards]

    # ------------------------------------------------------------------ the thread

    def _live(self) -> None:
        mask_interrupt(True)  # the children's, who inherit it: Ctrl-C is the parent's
        while not (self._closing and self._finished()):
            try:
                self._turn()
            except Exception:  # a loop's edge
                log.exception("the process pool failed and goes on")
                self._births.pause(1.0)
                threading.Event().wait(0.1)  # so that a lasting error does not burn a core
        self._watcher.close()

    def _turn(self) -> None:
        """Hand over what can be, then wait for something to happen and see to it."""
        self._dispatch()
        self._parked = True  # before looking again: others change what we look at, then look here
        pause = 0.0 if self._may_dispatch() else self._pause()
        self._watcher.wait(pause)
        self._parked = False
        while self._orders:
            self._orders.popleft()()
        now = time.monotonic()
        for ward in self._wards:
            if ward.look_at is not None and ward.look_at <= now:
                self._look(ward, now)

    def _pause(self) -> float | None:
        """Return how long nothing can be due; None: until something happens."""
        now = time.monotonic()
        times = [ward.look_at for ward in self._wards if ward.look_at is not None]
        if self._backlog and self._births.next_at > now and self._space() > 0:
            times.append(self._births.next_at)
        return max(0.0, min(times) - now) if times else None

    def _finished(self) -> bool:
        """While closing: send the children home when nothing is left to do."""
        if self._backlog or any(ward.jobs for ward in self._wards):
            return False
        for ward in self._wards:
            if not ward.retiring:
                self._retire(ward)
        return not self._wards

    def _dispatch(self) -> None:
        while (light := self._backlog.light()) is not None:
            if (ward := self._free(light)) is None:
                break
            if batch := self._backlog.take(ward.room()):
                self._hand(ward, batch)
        starting = sum(not ward.ready for ward in self._wards)
        for _ in range(min(self._space(), len(self._backlog) - starting)):
            if time.monotonic() < self._births.next_at:
                break
            self._start()

    def _may_dispatch(self) -> bool:
        light = self._backlog.light()
        return light is not None and self._free(light) is not None

    def _free(self, light: bool) -> Ward | None:
        """Return a child that may get more: an idle one, or one that soon will be."""
        second = None
        for ward in self._wards:
            if ward.usable:
                if not ward.jobs:
                    return ward
                if light and ward.light and ward.hand_offs < 2:
                    second = ward
        return second

    def _hand(self, ward: Ward, batch: Sequence[Job]) -> None:
        now = time.monotonic()
        ward.light = self._backlog.is_light(batch[0])
        ward.hand(batch)
        if not ward.flush():
            self._watcher.want_write(ward.socket, True)
        if ward.room() <= 0:
            self._retire(ward)
        self._look_later(ward, now)

    def _look_later(self, ward: Ward, now: float) -> None:
        """Note the first instant at which a deadline or a stuck run is possible."""
        pauses = [job.plan.timeout for job in ward.jobs.values() if job.plan.timeout]
        if len(ward.jobs) > 1:
            pauses.append(LOOK)
        if pauses:
            at = now + min(pauses)
            ward.look_at = at if ward.look_at is None else min(at, ward.look_at)

    # ------------------------------------------------------------------ what children do

    def _space(self) -> int:
        """Return how many children may be started; one that only has to exit does not count."""
        return self.size - sum(not (w.retiring and not w.jobs) for w in self._wards)

    def _start(self) -> None:
        try:
            ward = self._make_ward()
        except Exception as error:
            self._births.failed(f"the system starts no process: {error}")
            return
        self._wards = [*self._wards, ward]
        self._watcher.add(ward.socket, partial(self._hear, ward))
        self._watcher.add(ward.commits, partial(self._answer_commits, ward))
        if ward.child.sentinel is not None:
            self._watcher.add(ward.child.sentinel, partial(self._died, ward))

    def _hear(self, ward: Ward) -> None:
        if ward.flush():
            self._watcher.want_write(ward.socket, False)
        found, closed = ward.receive()
        if ward.ready:
            self._births.failures = 0
        self._report(ward, found)
        if closed:
            self._watcher.drop(ward.socket)
            ward.deaf = True  # it is dying; if it is not, it is of no use
            ward.look_at = time.monotonic() + (LINGER if ward.retiring else LOOK)
            if ward.child.sentinel is None:
                self._died(ward)

    def _report(self, ward: Ward, found: Iterable[Report]) -> None:
        for report in found:
            if (job := ward.jobs.pop(report.number, None)) is None:
                continue  # its deadline has ended it
            self._backlog.learn(job, report.seconds)
            job.attempt, job.started_at = report.attempt, report.started_at
            try:
                outcome = decode_outcome(report.kind, report.payload)
            except Exception as error:  # the engine's own; the job must not be lost
                outcome = Failed(error)
            end(job, outcome)
        self._await_exit(ward)

    def _answer_commits(self, ward: Ward) -> None:
        self._watcher.drop(ward.commits)
        ward.answer_commits()

    def _died(self, ward: Ward) -> None:
        """Collect what a dead child has left: outcomes, one run that it had started, the rest."""
        found, _ = ward.receive()
        self._report(ward, [*found, *ward.written()])
        for watched in (ward.socket, ward.commits, ward.child.sentinel):
            if watched is not None:
                self._watcher.drop(watched)
        self._wards = [other for other in self._wards if other is not ward]
        started, code = ward.ledger.started(), ward.child.bury()
        rest: list[Job] = []
        for number, job in [*ward.jobs.items()]:
            if number == started:
                log.warning("child %d died (exit code %d) in a run of %s", ward.pid, code, job.id)
                end(job, Crashed(code) if job.acked else death(code))
            else:
                rest.append(job)
        self._backlog.put_back(rest)
        ward.jobs.clear()
        if not ward.ready and not ward.killed:
            self._births.failed(f"child {ward.pid} ended with code {code} before it was ready")

    def _look(self, ward: Ward, now: float) -> None:
        """See whether a run has passed its deadline, or keeps others waiting."""
        ward.look_at = None
        if ward.deaf or (ward.retiring and not ward.jobs):
            if not ward.killed:
                log.warning("child %d does not exit; it is killed", ward.pid)
                ward.kill()
            return
        found, _ = ward.receive()
        self._report(ward, found)
        with ward.ledger.held() as locked:
            self._report(ward, ward.written())
            job, ran = ward.current(), now - ward.ledger.since()
            limit = job.plan.timeout if job else 0.0
            if job and limit and ran >= limit:
                log.warning("task %s passed its limit of %g s; its child is killed", job.id, limit)
                self._kill(ward, job, TimedOut(limit))
                return
            if locked and ran >= STUCK and len(ward.jobs) > 1:
                self._backlog.put_back(ward.take_back())
        self._look_later(ward, now)
        if job and limit:
            at = now + limit - ran
            ward.look_at = min(at, now + LOOK) if len(ward.jobs) > 1 else at

    def _retire(self, ward: Ward) -> None:
        ward.retire()
        self._await_exit(ward)

    def _await_exit(self, ward: Ward) -> None:
        """Give a child that has nothing more to do some time to end."""
        if ward.retiring and not ward.jobs:
            ward.look_at = time.monotonic() + LINGER

    def _end_run(self, job: Job, error: BaseException) -> None:
        """Kill the child that runs the job; the lock keeps it from starting another one.

        When its worker stops, nothing of the same owner is to start in the next child.
        """
        if isinstance(error, Interrupted):
            for other in self.withdraw(len(self._backlog), job.owner):
                end(other, Requeue())
        for ward in self._wards:
            if ward.current() is job:
                with ward.ledger.held():
                    self._report(ward, ward.written())
                    if ward.current() is job:
                        self._kill(ward, job, Failed(error))

    def _kill(self, ward: Ward, job: Job, outcome: Outcome) -> None:
        """Kill first, so that nothing the run does can follow its outcome."""
        ward.kill()
        ward.jobs.pop(ward.ledger.started(), None)
        end(job, outcome)
