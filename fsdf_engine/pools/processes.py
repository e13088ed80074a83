"""Process pool: the parent holds the leases, children run the code, a killed child harms one run.

One thread of the parent owns everything; it waits on the children's sockets, their deaths and the
next instant at which something may be due. A child gets up to 2 ms of work per hand-off, and a
second hand-off while it does the first, so that it never waits; a long run is handed over alone.
Where it turns out longer than its kind used to be, what waits behind it is taken back.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

from ..contracts import Job, Owner, Pool, PoolCapability
from ..core.family import keep_main_file, starting
from ..core.pushes import keep_open
from ..core.signals import INTERRUPT
from ..core.slots import checked_size
from ..core.watcher import Watcher
from ..outcomes import Crashed, Failed, Interrupted, Outcome, Requeue, TimedOut
from .backlog import Backlog
from .hand_off import Ended, decode_ended
from .pool_child import LOOK, Births, PoolChild, death, end, limits_in_child
from .thinning import Thinning

__all__ = ["ProcessPool"]
log = logging.getLogger("fsdf.pools")
RESOLVE = "fsdf_engine.children:resolve_plan"
STUCK = 0.01  # a run this long keeps others from waiting behind it
LINGER = 5.0  # a retired child may take so long to exit
PARTING = 1.0  # seconds that closing waits for children with nothing left to do
LONGEST = 3600.0  # seconds of one wait, which is less than any system's own limit
BIRTH = 30.0  # a child that is not ready by then keeps no message from other workers


class ProcessPool(Pool):
    """Children started as needed, up to `size`; each runs one job at a time.

    `start_method` is spawn, forkserver or fork; "" is what is usual here. `preload` names modules
    that each child (or the fork server, once) imports first. A child is replaced after
    `max_tasks_per_child` jobs, and between runs when its resident memory exceeds that many bytes.
    After `keep_alive` idle seconds it ends, while more than `least` are left; 0: children stay.
    `resolve` is "module:function"; the child calls it with (queue, name) for the task's plan.
    """

    capabilities: ClassVar[PoolCapability] = PoolCapability.KILLS | PoolCapability.BOTH

    def __init__(
        self, size: int, *, start_method: str = "", preload: Sequence[str] = (),
        max_tasks_per_child: int = 0, max_memory_per_child: int = 0, least: int = 0,
        keep_alive: float = 0.0, resolve: str = RESOLVE,
    ) -> None:  # fmt: skip
        self.size, self._method, self._preload = checked_size(size), start_method, tuple(preload)
        starting(start_method)  # what is wrong is said here
        self._make_child = partial(
            PoolChild, preload=self._preload, resolve=resolve,
            max_tasks=max_tasks_per_child, max_memory=max_memory_per_child,
        )  # fmt: skip
        keep_main_file()
        self._backlog = Backlog()
        self._opening = threading.Lock()  # of _closing and _thread
        self._children: list[PoolChild] = []  # the thread's; replaced, so that others may read
        self._orders: deque[Callable[[], None]] = deque()  # from other threads
        self._births, self._thinning = Births(), Thinning(least, keep_alive)
        self._closing = self._parked = False
        self._watcher = Watcher()
        self._thread: threading.Thread | None = None

    @classmethod
    def build(cls, size: int, options: Any, modules: Sequence[str] = ()) -> ProcessPool:
        """Make the pool that a task's options describe."""
        return cls(
            size,
            start_method=options.process_start_method,
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
        """Count those not handed over, and those that a child has not started.

        For whom a child is being started it is no wait for a run to end.
        """
        children, old = self._children, time.monotonic() - BIRTH
        handed = sum(len(child.jobs) - (child.current() is not None) for child in children)
        late = any(not child.ready and child.born < old for child in children)
        free = self.size - sum(bool(child.jobs) for child in children)  # idle, or to be started
        if late or self._births.failures:
            free = 0
        return max(0, len(self._backlog) - max(0, free)) + max(0, handed)

    def running(self) -> Collection[Job]:
        """Return the jobs that the children have started last and not reported."""
        return [job for child in self._children if (job := child.current())]

    def withdraw(
        self, limit: int, owner: Owner | None = None, *, acked: bool = True
    ) -> Sequence[Job]:
        """Take jobs that were not handed over; what was handed over starts within milliseconds."""
        return self._backlog.withdraw(limit, owner, acked=acked)

    def interrupt(self, job: Job, error: BaseException, kill: bool = False) -> bool:
        """Raise in the child's main thread, once in an attempt, where the system has SIGUSR1.

        With `kill` the child is killed, and the job ends as failed with this error.
        """
        running = any(child.current() is job for child in self._children)
        if not running or not (kill or INTERRUPT):
            return False
        self._orders.append(partial(self._end_run if kill else self._raise, job, error))
        self._watcher.wake()
        return True

    def ahead(self, job: Job) -> int:
        """Two hand-offs for each child, of short ones."""
        return max(0, 2 * self._backlog.together(job) - 1) * self.size

    def alive(self, within: float) -> bool:
        """False when children can no longer be started, so that other workers get the messages."""
        if self._births.hopeless and not any(child.ready for child in self._children):
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
        handed = [job for child in self._children for job in [*child.jobs.values()]]
        left = [*self._backlog.jobs(), *handed]
        if not left:
            thread.join(PARTING)
        return left

    def processes(self) -> Sequence[int]:
        return [child.pid for child in self._children]

    def process_of(self, job: Job) -> int:
        return next((c.pid for c in self._children if job in [*c.jobs.values()]), os.getpid())

    def began(self, job: Job) -> float:
        return max((child.began(job) for child in self._children), default=0.0)

    # ------------------------------------------------------------------ the thread

    def _live(self) -> None:
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
        for child in self._children:
            if child.look_at is not None and child.look_at <= now:
                self._look(child, now)
        for child in self._thinning.surplus(self._children, now):
            self._retire(child)

    def _pause(self) -> float | None:
        """Return how long nothing can be due; None: until something happens."""
        now = time.monotonic()
        times = [child.look_at for child in self._children if child.look_at is not None]
        times += self._thinning.due(self._children)
        if self._backlog and self._births.next_at > now and self._space() > 0:
            times.append(self._births.next_at)
        return max(0.0, min(min(times) - now, LONGEST)) if times else None

    def _finished(self) -> bool:
        """While closing: send the children home when nothing is left to do."""
        if self._backlog or any(child.jobs for child in self._children):
            return False
        for child in self._children:
            if not child.ready:  # at the end of the interpreter what it is given would be gone
                child.kill()
            elif not child.retiring:
                self._retire(child)
        return not self._children

    def _dispatch(self) -> None:
        while (light := self._backlog.light()) is not None:
            if (child := self._free(light)) is None:
                break
            if batch := self._backlog.take(child.room()):
                self._hand(child, batch)
        starting = sum(not child.ready for child in self._children)
        for _ in range(min(self._space(), len(self._backlog) - starting)):
            if time.monotonic() < self._births.next_at:
                break
            self._start()

    def _may_dispatch(self) -> bool:
        light = self._backlog.light()
        return light is not None and self._free(light) is not None

    def _free(self, light: bool) -> PoolChild | None:
        """Return a child that may get more: an idle one, or one that soon will be."""
        second = None
        for child in self._children:
            if child.usable:
                if not child.jobs:
                    return child
                if light and child.light and child.hand_offs < 2:
                    second = child
        return second

    def _hand(self, child: PoolChild, batch: Sequence[Job]) -> None:
        now = time.monotonic()
        child.light = self._backlog.is_light(batch[0])
        child.hand(batch)
        if not child.flush():
            self._watcher.want_write(child.socket, True)
        if child.room() <= 0:
            self._retire(child)
        child.look_later(now)

    # ------------------------------------------------------------------ what children do

    def _space(self) -> int:
        """Return how many children may be started; one that only has to exit does not count."""
        return self.size - sum(not (w.retiring and not w.jobs) for w in self._children)

    def _start(self) -> None:
        try:
            context = starting(self._method)  # a command settles what is usual after its imports
            if self._preload and context.get_start_method() == "forkserver":
                context.set_forkserver_preload(["__main__", *self._preload])
            child = self._make_child(context)
        except Exception as error:
            self._births.failed(f"the system starts no process: {error}")
            return
        self._children = [*self._children, child]
        self._watcher.add(child.socket, partial(self._hear, child))
        self._watcher.add(child.commits, partial(self._answer_commits, child))
        if child.child.sentinel is not None:
            self._watcher.add(child.child.sentinel, partial(self._died, child))

    def _hear(self, child: PoolChild) -> None:
        if child.flush():
            self._watcher.want_write(child.socket, False)
        found, closed = child.receive()
        if child.ready:
            self._births.failures = 0
        self._report(child, found)
        if closed:
            self._watcher.drop(child.socket)
            child.deaf = True  # it is dying; if it is not, it is of no use
            child.look_at = time.monotonic() + (LINGER if child.retiring else LOOK)
            if child.child.sentinel is None:
                self._died(child)

    def _report(self, child: PoolChild, found: Iterable[Ended]) -> None:
        for run in found:
            if child.heard:
                child.tell_starts()
            if (job := child.jobs.pop(run.number, None)) is None:
                continue  # its deadline has ended it
            self._backlog.learn(job, run.seconds)
            if job.plan.took:
                job.plan.took(run.seconds)
            job.attempt = run.attempt
            if run.pushes or run.push:
                keep_open(job, run.base, run.push, run.pushes)
            try:
                outcome, job.told = decode_ended(run.kind, run.payload)
            except Exception as error:  # the engine's own; the job must not be lost
                outcome = Failed(error)
            end(job, outcome)
        self._await_exit(child)

    def _answer_commits(self, child: PoolChild) -> None:
        self._watcher.drop(child.commits)
        child.answer_commits()

    def _died(self, child: PoolChild) -> None:
        """Collect what a dead child has left: outcomes, one run that it had started, the rest."""
        found, _ = child.receive()
        self._report(child, [*found, *child.written()])
        for watched in (child.socket, child.commits, child.child.sentinel):
            if watched is not None:
                self._watcher.drop(watched)
        self._children = [other for other in self._children if other is not child]
        started, code = child.ledger.started(), child.child.bury()
        child.tell_starts()
        rest: list[Job] = []
        for number, job in [*child.jobs.items()]:
            if number == started:
                log.warning("child %d died (exit code %d) in a run of %s", child.pid, code, job.id)
                end(job, Crashed(code) if job.acked else death(code))
            else:
                rest.append(job)
        self._backlog.put_back(rest)
        child.jobs.clear()
        if not child.ready and not child.killed:
            self._births.failed(f"child {child.pid} ended with code {code} before it was ready")

    def _look(self, child: PoolChild, now: float) -> None:
        """See whether a run has passed its deadline, or keeps others waiting."""
        child.look_at = None
        if child.deaf or (child.retiring and not child.jobs):
            if not child.killed:
                log.warning("child %d does not exit; it is killed", child.pid)
                child.kill()
            return
        found, _ = child.receive()
        self._report(child, found)
        with child.ledger.held() as locked:
            self._report(child, child.written())
            job, since = child.current(), child.ledger.since()
            (soft, hard), ran = limits_in_child(job), now - since
            if job and 0 < hard <= ran:
                log.info("child %d is killed: %s passed its limit of %g s", child.pid, job.id, hard)
                self._kill(child, job, TimedOut(hard))
                return
            if job and locked and 0 < soft <= ran:
                child.warn(since, job)
            if locked and ran >= STUCK and len(child.jobs) > 1:
                self._backlog.put_back(child.take_back())
        child.look_again(now, locked)

    def _retire(self, child: PoolChild) -> None:
        child.retire()
        self._await_exit(child)

    def _await_exit(self, child: PoolChild) -> None:
        """Give a child that has nothing more to do some time to end."""
        if child.retiring and not child.jobs:
            child.look_at = time.monotonic() + LINGER

    def _raise(self, job: Job, error: BaseException) -> None:
        for child in self._children:
            with child.ledger.held() as locked:
                if locked and child.current() is job:
                    child.interrupt(error)

    def _end_run(self, job: Job, error: BaseException) -> None:
        """Kill the child that runs the job; the lock keeps it from starting another one.

        When its worker stops, nothing of the same owner is to start in the next child.
        """
        stops = isinstance(error, Interrupted)
        for child in self._children:
            if child.current() is job:
                with child.ledger.held() as locked:
                    self._report(child, child.written())
                    if stops and locked:
                        self._backlog.put_back(child.take_back())
                    if child.current() is job:
                        self._kill(child, job, Failed(error))
        if stops:
            for other in self.withdraw(len(self._backlog), job.owner):
                end(other, Requeue())

    def _kill(self, child: PoolChild, job: Job, outcome: Outcome) -> None:
        """Kill first, so that nothing the run does can follow its outcome."""
        child.kill()
        child.tell_starts()
        child.jobs.pop(child.ledger.started(), None)
        end(job, outcome)
