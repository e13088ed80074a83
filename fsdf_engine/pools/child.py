"""The child's side of a process pool: read a hand-off, run its jobs, write down their outcomes.

Everything happens in the main thread, so that user code may use signals. Importing user modules is
what the parent asks for by name (`preload`, `resolve`), never what a message asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any, TypeAlias

from ..contracts import Effect, Job, Plan, Report, finish
from ..core.context import is_forked
from ..core.family import enter, load
from ..core.forms import open_envelope
from ..core.resolving import LIMIT, plan_by
from ..core.signals import leave_to_parent
from ..errors import ArgumentError, LeaseLost
from ..hooks import hooks
from ..outcomes import Failed, Outcome, Retry, Unknown, kind_of, text_of, trace_of
from . import hand_off
from .channel import Channel
from .child_interrupts import Interrupts
from .ledger import Ledger
from .stepped import Stepped

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["AGAIN", "DONE", "ERROR", "LARGE", "PROGRESS", "READY", "STARTED", "WRITTEN", "live"]
log = logging.getLogger("fsdf.pools")
# The first byte of what a child sends.
READY, WRITTEN, DONE, LARGE, ERROR, AGAIN, STARTED = b"R", b"W", b"D", b"O", b"E", b"A", b"S"
PROGRESS = Struct("<QQ")  # after WRITTEN or DONE: bytes of outcomes written, of memory used


def live(
    jobs: socket.socket,
    commits: socket.socket,
    ledger: Ledger,
    preload: Sequence[str],
    resolve: str,
    weighs: bool,
    inherited: dict[str, Any],
) -> None:
    """Serve until the parent closes `jobs`; the target of the process.

    `resolve` is the "module:function" that returns the plan of (queue, name). With `weighs` the
    parent is told how much memory is used.
    """
    leave_to_parent()
    interrupts = Interrupts(ledger)
    enter()
    channel = Channel(jobs)
    try:
        find = load(preload, resolve, inherited)
    except BaseException as error:
        _send(channel, ERROR, _explained(error))
        raise SystemExit(1) from None
    hooks.call("start")
    gc.freeze()
    _send(channel, READY)
    _Runner(channel, _Commits(Channel(commits), interrupts), ledger, find, weighs).serve()
    hooks.call("end")


def _explained(error: BaseException) -> bytes:
    return trace_of(Failed(error)).encode(errors="replace")


def _send(channel: Channel, kind: bytes, *parts: bytes) -> None:
    with contextlib.suppress(OSError):  # a dead parent ends us anyway
        channel.send(hand_off.LENGTH.pack(1 + sum(map(len, parts))), kind, *parts)


Resolve: TypeAlias = Callable[[str, str], Plan]  # of (queue, task)


class _Runner:
    """Runs what arrives, one job after the other."""

    def __init__(
        self, channel: Channel, commits: _Commits, ledger: Ledger, resolve: Resolve, weighs: bool
    ) -> None:
        self._channel, self._commits, self._ledger = channel, commits, ledger
        self._interrupts = commits.interrupts
        self._resolve, self._weighs = resolve, weighs
        self._names: dict[int, tuple[str, str, str]] = {}
        self._plans: dict[int, Plan] = {}
        self._heard = False  # somebody listens to starts, which are told at once
        self._loop: asyncio.AbstractEventLoop | None = None

    def serve(self) -> None:
        """Block until the parent closes."""
        while (frame := self._channel.receive()) is not None:
            tasks, jobs = hand_off.decode_hand_off(frame)
            for number, queue, name, resolver, heard in tasks:
                self._names[number] = queue, name, resolver
                self._heard |= heard
                if not resolver:
                    self._plan(number)  # now: imports take longer than some runs may
            for handed in jobs:
                if self._ledger.start(handed.number):
                    if self._heard:
                        _send(self._channel, STARTED)
                    self._run(handed)
            self._tell_progress(DONE)
        if self._loop:
            self._loop.close()

    def _tell_progress(self, kind: bytes) -> None:
        used = memory() if self._weighs else 0
        _send(self._channel, kind, PROGRESS.pack(self._ledger.written(), used))

    def _run(self, handed: hand_off.Handed) -> None:
        job, begin = Job(), time.perf_counter()
        try:
            outcome = self._outcome(job, handed)
        except BaseException as error:  # the engine's own; user code's are in the outcome
            outcome = Failed(error)
        if is_forked(job):
            finish(job, outcome)  # ends this process
        seconds = time.perf_counter() - begin
        try:
            report = hand_off.encode_ended(handed.number, job, outcome, seconds)
        except BaseException as error:  # user code: a reason that is no text for JSON
            report = hand_off.encode_ended(handed.number, job, Failed(error), seconds)
        if not self._ledger.write(report):
            _send(self._channel, LARGE, report)
        elif self._ledger.fills():
            self._tell_progress(WRITTEN)

    def _outcome(self, job: Job, handed: hand_off.Handed) -> Outcome:
        job.id, job.delivery, job.attempt = handed.id, handed.delivery, handed.attempt
        job.extra, job.pushes = {}, None
        plan = self._plans.get(handed.task)
        if plan is None:
            queue, name, resolver = self._names[handed.task]
            if not resolver:
                return Unknown(name or queue)
            try:
                plan = self._resolved(handed.task)
            except BaseException as error:
                return Unknown(name, f"its resolver failed: {kind_of(error)[1]}: {text_of(error)}")
        job.plan, job.owner = plan, _Owner(self._commits, handed.number, plan.place)
        job.claims, job.acked = None, False
        job.published_at = handed.delivery.published_at
        if misread := open_envelope(job, plan.codecs):
            return misread
        if plan.run is not None:
            return self._interrupts.call(handed.number, plan.run, job)
        if plan.arun is None:
            raise ArgumentError(f"the plan of {plan.name or plan.queue!r} cannot be run")
        return self._await(handed.number, plan.arun(job))

    def _await(self, number: int, run: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Await a run on the loop of this process, into which nothing may be raised itself."""
        if (loop := self._loop) is None:
            loop = self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
        stepped = Stepped(run)
        task: asyncio.Task[Outcome] = loop.create_task(stepped)

        def throw(error: BaseException) -> None:
            loop.call_soon_threadsafe(stepped.interrupt, task, error)

        return self._interrupts.call(number, loop.run_until_complete, task, throw)

    def _resolved(self, task: int) -> Plan:
        """Ask the resolver, in the first run that needs it: its death there counts against that.

        The time of the run itself begins afterwards. A resolver that hangs ends this process.
        """
        queue, name, resolver = self._names[task]
        self._ledger.restart(3 * LIMIT)
        limit = threading.Timer(LIMIT, _end_stuck, (name,))
        limit.daemon = True
        limit.start()
        try:
            plan = plan_by(resolver, queue, name)
        finally:
            limit.cancel()
            self._ledger.restart(0.0)
        self._plans[task] = plan = self._telling(plan)
        return plan

    def _telling(self, plan: Plan) -> Plan:
        return plan._replace(report=_Retries(self._channel, self._interrupts))

    def _plan(self, task: int) -> None:
        queue, name, _ = self._names[task]
        try:
            self._plans[task] = self._telling(self._resolve(queue, name))
        except BaseException as error:
            reason = (
                f"the task {name or queue!r} of queue {queue!r} is not declared in the child"
                " process: declare it at the top level of a module, not under"
                " `if __name__ == '__main__'`, in a function or in a shell\n"
            )
            _send(self._channel, ERROR, reason.encode(errors="replace"), _explained(error))


def _end_stuck(name: str) -> None:
    log.error("the resolver of %r has not answered for %g s; this child ends", name, LIMIT)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


class _Retries(Report):
    """Tells the parent of attempts that failed and are repeated here."""

    def __init__(self, channel: Channel, interrupts: Interrupts) -> None:
        self._channel, self._interrupts = channel, interrupts

    def retried(self, job: Job, outcome: Retry, /) -> None:
        """Send it. Blocks until the parent's pool has room for it."""
        number = job.owner.number  # type: ignore[attr-defined]
        with self._interrupts.held():
            self._interrupts.restart(outcome.delay)  # first: who hears of it looks at the limits
            self._tell(number, job, outcome)

    def _tell(self, number: int, job: Job, outcome: Retry) -> None:
        with contextlib.suppress(Exception):  # an error that has no JSON form stops no attempt
            _send(self._channel, AGAIN, hand_off.encode_ended(number, job, outcome, 0.0))


class _Commits:
    """Asks the parent to store effects; runs in any thread of the child, one at a time."""

    def __init__(self, channel: Channel, interrupts: Interrupts) -> None:
        self.interrupts = interrupts
        self._channel, self._lock, self._requests = channel, threading.Lock(), 0
        self._threads: Executor | None = None

    def threads(self) -> Executor:
        """Return the thread that asks for coroutines, one at a time."""
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(1, "fsdf-commit")
        return self._threads

    def ask(self, number: int, effects: Sequence[Effect]) -> BaseException | None:
        """Return what went wrong. Blocks until the parent has stored the effects."""
        with self._lock:
            self._requests += 1
            request = self._requests
            self._channel.send(hand_off.encode_commit(request, number, effects))
            while (frame := self._channel.receive()) is not None:
                answered, error = hand_off.decode_reply(frame, effects)
                if answered == request:  # else of a request that an exception interrupted
                    return error
        return LeaseLost("the worker process has ended")


class _Owner:
    """Stands for the outbox, which is in the parent."""

    __slots__ = ("_commits", "number", "place")

    def __init__(self, commits: _Commits, number: int, place: tuple[str, str]) -> None:
        self._commits, self.number, self.place = commits, number, place

    def put(self, job: Job, /) -> None:
        """Change nothing: the outcome travels when the run has ended."""

    def commit(self, job: Job, effects: Sequence[Effect]) -> None:
        """Block until the parent has stored the effects; raises what it raised there."""
        with self._commits.interrupts.held():
            if error := self._commits.ask(self.number, effects):
                raise error

    async def acommit(self, job: Job, effects: Sequence[Effect]) -> None:
        """As `commit`, in a thread of ours: those of the loop may all be busy."""
        loop, threads = asyncio.get_running_loop(), self._commits.threads()
        await loop.run_in_executor(threads, lambda: self.commit(job, effects))


def memory() -> int:
    """Return this process's resident memory in bytes; its peak where the system tells no more."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        peak: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak) * (1 if sys.platform == "darwin" else 1024)
