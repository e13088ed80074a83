"""Asyncio pool: one task per run on one loop, which all pools of a process share."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from contextvars import Context
from typing import Any

from ..contracts import Job, Owner, Pool, PoolCapability, finish
from ..core.context import Forked
from ..core.slots import checked_size, take_last
from ..outcomes import Deadline, Failed, Outcome
from .stepped import Stepped

__all__ = ["AsyncioPool", "shared_loop"]

log = logging.getLogger("fsdf.pools")
TURN = 100  # runs started before the loop looks at its sockets again
CANCELS = 3  # some code swallows the first one
PATIENCE = 0.1  # seconds between two of them
_shared: tuple[int, asyncio.AbstractEventLoop] | None = None  # (process id, loop)
_sharing = threading.Lock()


def shared_loop() -> asyncio.AbstractEventLoop:
    """Return the loop of this process's coroutines; starts its thread at the first call.

    It lives as long as the process, so that what user code binds to it (client sessions, locks)
    outlives any consumer. A forked child gets one of its own.
    """
    global _shared
    with _sharing:
        if _shared is None or _shared[0] != os.getpid():
            loop = asyncio.new_event_loop()
            threading.Thread(target=_serve, args=(loop,), name="fsdf-loop", daemon=True).start()
            _shared = os.getpid(), loop
        return _shared[1]


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
            log.warning("user code has stopped the loop of all coroutines; it goes on")
        except Forked:  # its only thread
            return
        except BaseException:  # out of a task or callback that user code has made itself
            log.exception("an error left the loop of all coroutines; it goes on")


class AsyncioPool(Pool):
    """Runs up to `size` jobs at once as tasks of one loop, each in a clean context.

    `loop` is the caller's own, running one; it is never stopped or closed here. Everything but
    `submit`, `withdraw` and the counters happens in the loop's thread. A run past its deadline is
    cancelled up to three times, then abandoned; what is to be raised in it is raised as it is, and
    what it waits for is cancelled.
    """

    capabilities = PoolCapability.COROUTINES

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.size, self._loop = checked_size(size), loop or shared_loop()
        self._jobs: deque[Job] = deque()
        self._tasks: dict[Job, asyncio.Task[None] | None] = {}  # None: its task is being made
        self._interrupts: dict[Job, BaseException] = {}  # that are to end their runs
        self._stepped: dict[Job, Stepped] = {}  # the runs that have claims
        self._abandoned: set[Job] = set()
        self._filling = False  # `_fill` is under way or will be called
        self._asked = 0.0  # when the ping that has no answer yet was sent
        self._closing = False
        self._idle = threading.Event()

    @classmethod
    def build(cls, size: int, options: Any, modules: Sequence[str] = ()) -> AsyncioPool:
        """Return a pool on the loop that the options name, or on the shared one."""
        return cls(size, options.specify_async_loop)

    def submit(self, jobs: Sequence[Job]) -> None:
        self._jobs.extend(jobs)
        if not self._filling and self._room() > 0:
            self._filling = True
            self._call(self._fill)

    def _call(self, fn: Any, *args: Any) -> bool:
        """Call in the loop, soon; False when somebody has closed it."""
        try:
            self._loop.call_soon_threadsafe(fn, *args)
        except RuntimeError:
            log.exception("the pool's loop was closed; its jobs will be given back")
            return False
        return True

    def _room(self) -> int:
        return self.size + min(len(self._abandoned), self.size) - len(self._tasks)

    def _fill(self) -> None:
        """Start what fits. An eager task may have ended when `_start` returns."""
        self._filling = True
        for _ in range(TURN):
            if not self._jobs or self._room() <= 0:
                break
            try:
                job = self._jobs.popleft()
            except IndexError:  # withdrawn
                break
            self._tasks[job] = None
            task = self._start(job)
            if job in self._tasks:
                self._tasks[job] = task
        else:
            self._loop.call_soon(self._fill)
            return
        self._filling = False
        if self._jobs and self._room() > 0:  # submitted since we looked
            self._filling = True
            self._loop.call_soon(self._fill)

    if sys.version_info >= (3, 12):

        def _start(self, job: Job) -> asyncio.Task[None]:
            return asyncio.Task(
                self._run(job), loop=self._loop, eager_start=True, context=Context()
            )

    else:

        def _start(self, job: Job) -> asyncio.Task[None]:
            task = Context().run(self._loop.create_task, self._run(job))
            task.add_done_callback(lambda _: self._end_unstarted(job))
            return task

    def _end_unstarted(self, job: Job) -> None:
        """Settle a run that was cancelled before its first step: user code may cancel any task."""
        if job in self._tasks:
            self._end(job, Failed(asyncio.CancelledError()))

    async def _run(self, job: Job) -> None:
        try:
            run: Any = job.plan.arun(job)  # type: ignore[misc]
            if job.claims is not None:
                run = self._stepped[job] = Stepped(run)
            outcome: Outcome = await run
        except BaseException as error:  # a cancel may arrive anywhere
            outcome = Failed(error)
        self._end(job, outcome)

    def _end(self, job: Job, outcome: Outcome) -> None:
        del self._tasks[job]
        if self._stepped:
            self._stepped.pop(job, None)
        if self._interrupts and (error := self._interrupts.pop(job, None)):
            self._abandoned.discard(job)
            if isinstance(getattr(outcome, "error", None), asyncio.CancelledError):
                outcome = Failed(error)
        try:
            finish(job, outcome)
        except Exception:  # the owner's own; raised on, it would be reported as the run's
            log.exception("an outcome could not be handed over")
        if self._jobs and not self._filling:
            self._fill()
        elif self._closing:
            self._look()

    def _look(self) -> None:
        if not self._jobs and len(self._tasks) == len(self._abandoned):
            self._idle.set()

    def waiting(self) -> int:
        return len(self._jobs)

    def running(self) -> Collection[Job]:
        return [job for job in self._tasks.copy() if job not in self._abandoned]

    def abandoned(self) -> int:
        return len(self._abandoned)

    def withdraw(
        self, limit: int, owner: Owner | None = None, *, acked: bool = True
    ) -> Sequence[Job]:
        taken = take_last(self._jobs, limit, owner, acked=acked)
        if self._jobs:
            self.submit(())
        return taken

    def interrupt(self, job: Job, error: BaseException, kill: bool = False) -> bool:
        if job not in (self._tasks if kill else self._stepped) or job in self._interrupts:
            return False
        return self._call(self._interrupt if kill else self._raise, job, error)

    def _raise(self, job: Job, error: BaseException) -> None:
        if job in self._stepped and job not in self._interrupts and (task := self._tasks[job]):
            self._stepped[job].interrupt(task, error)

    def _interrupt(self, job: Job, error: BaseException) -> None:
        if job not in self._tasks or job in self._interrupts:
            return
        self._interrupts[job] = error
        late = isinstance(error, Deadline)
        # one turn of the loop later: a task that was made just now has taken its first step then
        self._loop.call_soon(self._cancel, job, late, CANCELS if job.plan.kill or not late else 0)

    def _cancel(self, job: Job, late: bool, left: int) -> None:
        if (task := self._tasks.get(job)) is None:
            return
        if left:
            task.cancel()
            self._loop.call_later(PATIENCE, self._cancel, job, late, left - 1)
        elif late:
            self._abandoned.add(job)
            self._look()
            if not self._filling:
                self._fill()

    def alive(self, within: float) -> bool:
        """Ping the loop; False when an earlier ping has had no answer for `within` seconds."""
        now = time.monotonic()
        if self._asked:
            return now - self._asked < within and not self._loop.is_closed()
        self._asked = now
        return self._call(setattr, self, "_asked", 0.0)

    def close(self, grace: float) -> Collection[Job]:
        self._closing = True
        self._idle.clear()
        if (self._jobs or self._tasks) and self._call(self._look):
            self._idle.wait(grace)
        return self.running()
