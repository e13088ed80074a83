"""The parent's view of one child of a process pool. The pool's thread uses it."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import socket
import threading
import time
from collections.abc import Sequence
from multiprocessing.context import BaseContext

from ..contracts import Job, finish
from ..core.family import Child, inheritance
from ..core.resolving import LIMIT
from ..core.signals import INTERRUPT
from ..errors import LeaseLost
from ..limits import limits_of
from ..outcomes import Crashed, Outcome, Requeue, Retry
from . import hand_off
from .channel import CHUNK, Channel, Frames
from .child import AGAIN, DONE, ERROR, LARGE, PROGRESS, READY, STARTED, WRITTEN, live
from .ledger import Ledger

__all__ = ["LOOK", "Births", "PoolChild", "death", "end", "limits_in_child"]
log = logging.getLogger("fsdf.pools")
LOOK = 0.025  # seconds after a hand-off of several jobs: does it get on?
HOPELESS = 5  # failed starts in a row, before a pool without children no longer counts as alive


class PoolChild:
    """One child. `jobs` holds what it was handed and has not ended, by number, oldest first.

    `max_tasks` is how many jobs it gets in its life, `max_memory` how many bytes it may use between
    runs; 0: no limit.
    """

    def __init__(
        self,
        context: BaseContext,
        preload: Sequence[str],
        resolve: str,
        max_tasks: int,
        max_memory: int,
    ) -> None:
        """Start the process. Blocks for about a millisecond.

        Raises:
            OSError: the system gives no process, socket or memory.
        """
        self._max_tasks, self._max_memory = max_tasks, max_memory
        self.jobs: dict[int, Job] = {}
        self.ready = self.retiring = self.deaf = self.killed = False
        self.light = True  # what it was handed last is short
        self.heard = False  # somebody listens to the starts of its runs
        self._told = 0  # the last run of whose start listeners know
        self.hand_offs = 0  # that it has not reported as done
        self.look_at: float | None = None  # when the pool's thread has to look after it
        self.warned = 0.0  # when the attempt began that has passed its soft limit
        self.born, self.given = time.monotonic(), 0  # how many jobs it got in its life
        self._tasks: dict[tuple[str, str], int] = {}
        self._frames, self._unsent = Frames(), memoryview(b"")
        self.ledger = Ledger(context)
        self.child = Child(
            context, "fsdf-child", live, 2,
            self.ledger, preload, resolve, max_memory > 0, inheritance(),
        )  # fmt: skip
        self.pid = self.child.pid
        self.socket, self.commits = self.child.ends
        self.socket.setblocking(False)

    # ------------------------------------------------------------------ giving

    @property
    def usable(self) -> bool:
        """Say whether it takes jobs."""
        return self.ready and not (self.retiring or self.deaf or self.killed)

    def room(self) -> int:
        """Return how many more jobs it may get in its life."""
        return self._max_tasks - self.given if self._max_tasks else 1 << 30

    def hand(self, jobs: Sequence[Job]) -> None:
        """Give it jobs, in one write. Never blocks."""
        parts, tasks = [], []
        for job in jobs:
            self.given += 1
            key = job.plan.queue, job.plan.name
            if (task := self._tasks.get(key)) is None:
                task = self._tasks[key] = len(self._tasks)
                tasks.append((task, *key, job.plan.resolver, heard := job.plan.emit is not None))
                self.heard |= heard
            parts.append(hand_off.encode_job(self.given, task, job))
            self.jobs[self.given] = job
        self.hand_offs += 1
        more = hand_off.encode_hand_off(tasks, parts)
        self._unsent = memoryview(b"".join((self._unsent, more)) if self._unsent else more)
        self.flush()

    def flush(self) -> bool:
        """Send what the socket takes; True when nothing is left."""
        if self._unsent:
            try:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
            except BlockingIOError:
                pass
            except OSError:  # it is dying: the jobs come back when it is dead
                self._unsent = memoryview(b"")
        if not self._unsent and self.retiring:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
        return not self._unsent

    def retire(self) -> None:
        """Let it end when it has done what it was given."""
        self.retiring = True
        self.flush()

    def take_back(self) -> list[Job]:
        """Take what it has not started, oldest first. Call it with the ledger's lock held."""
        self.ledger.take_back(self.given)
        started = self.ledger.started()
        return [self.jobs.pop(number) for number in [*self.jobs] if number > started]

    # ------------------------------------------------------------------ hearing

    def receive(self) -> tuple[list[hand_off.Ended], bool]:
        """Return what it reports, and whether its end of the stream is closed. Never blocks."""
        found: list[hand_off.Ended] = []
        while True:
            try:
                data = self.socket.recv(CHUNK)
            except BlockingIOError:
                return found, False
            except OSError:
                return found, True
            if not data:
                return found, True
            for frame in self._frames.feed(data):
                found += self._read(frame[:1], frame[1:])
            if len(data) < CHUNK:
                return found, False

    def _read(self, kind: bytes, rest: bytes) -> Sequence[hand_off.Ended]:
        if kind in (WRITTEN, DONE):
            self.hand_offs -= kind == DONE
            written, memory = PROGRESS.unpack(rest)
            if memory > (self._max_memory or memory) and not self.retiring:
                log.info("child %d uses %d bytes; it is replaced", self.pid, memory)
                self.retire()
            return self.written(written)
        if kind == LARGE:
            return list(hand_off.ended_runs(rest))
        if kind == READY:
            self.ready = True
        elif kind == ERROR:
            log.error("child %d: %s", self.pid, rest.decode(errors="replace"))
        elif kind == AGAIN:
            self._retried(rest)
        elif kind == STARTED:
            self.tell_starts()
        return ()

    def tell_starts(self) -> None:
        """Tell listeners of the runs that have started, once: before anything else of them."""
        if (started := self.ledger.started()) > self._told:
            for number, job in [*self.jobs.items()]:
                if self._told < number <= started and job.plan.emit:
                    job.plan.emit("run_started", job=job)
            self._told = started

    def _retried(self, data: bytes) -> None:
        """Tell of an attempt that was repeated in the child."""
        for run in hand_off.ended_runs(data):
            if (job := self.jobs.get(run.number)) is None:
                continue
            if job.claims is not None:  # its limits count anew
                self.look_at = time.monotonic()
            if job.plan.report or job.plan.emit:
                outcome, _ = hand_off.decode_ended(run.kind, run.payload)
                if isinstance(outcome, Retry):
                    job.attempt = run.attempt
                    if job.plan.report:
                        job.plan.report.retried(job, outcome)
                    if job.plan.emit:
                        self.tell_starts()
                        job.plan.emit("run_retried", job=job, outcome=outcome)

    def written(self, until: int | None = None) -> list[hand_off.Ended]:
        """Return the outcomes in shared memory that were not read before."""
        return list(hand_off.ended_runs(self.ledger.read(until)))

    def current(self) -> Job | None:
        """Return the job that runs now. Any thread."""
        return self.jobs.get(self.ledger.started())

    def began(self, job: Job) -> float:
        """Return the instant at which the job that runs now began, 0.0 of others. Any thread."""
        since = self.ledger.since() if self.current() is job else 0.0
        return since if since <= time.monotonic() else 0.0  # it asks what the task is, or waits

    def serve_commits(self) -> None:
        """Answer commits in the middle of runs, until the child is gone. Blocks; its own thread."""
        with contextlib.suppress(OSError):
            channel = Channel(self.commits)
            while (frame := channel.receive()) is not None:
                request, number, effects = hand_off.decode_commit(frame)
                error: BaseException | None = None
                if (job := self.jobs.get(number)) is None:
                    error = LeaseLost("the run has ended, or passed its deadline")
                else:
                    try:
                        job.owner.commit(job, effects)
                    except BaseException as failure:  # the child's user code sees it
                        error = failure
                channel.send(hand_off.encode_reply(request, error, effects))

    def answer_commits(self) -> None:
        """Start the thread that answers commits, at the first one: most runs push nothing."""
        with contextlib.suppress(OSError):
            if self.commits.recv(1, socket.MSG_PEEK):  # else the child has ended
                threading.Thread(
                    target=self.serve_commits, name="fsdf-commits", daemon=True
                ).start()

    # ------------------------------------------------------------------ limits

    def look_later(self, now: float) -> None:
        """Note the first instant at which a run may pass a limit, or be stuck."""
        pauses = [LOOK] if len(self.jobs) > 1 else []
        for job in self.jobs.values():
            if job.claims is not None:
                pauses += filter(None, limits_in_child(job))
        if pauses:
            at = now + min(pauses)
            self.look_at = at if self.look_at is None else min(at, self.look_at)

    def look_again(self, now: float, locked: bool) -> None:
        """Note it after a look: of a run that has limits it is known exactly."""
        since, limits = self.ledger.since(), limits_in_child(self.current())
        if not any(limits):
            return self.look_later(now)
        times = [since + limit for limit in limits if since + limit > now]
        if len(self.jobs) > 1 or not locked or since - now > LIMIT:  # it asks what the task is
            times.append(now + LOOK)
        self.look_at = min(times, default=None)
        return None

    def warn(self, since: float, job: Job) -> None:
        """Have its soft limit raised, once, in the attempt of a job that began at this instant."""
        if self.warned != since:
            self.warned = since
            self.interrupt(job.plan.soft_error())
            if job.plan.warns:
                job.plan.warns("soft_limit_passed", job=job, seconds=limits_of(job)[0])

    def interrupt(self, error: BaseException) -> None:
        """Have `type(error)` raised in the run. Call it with the ledger's lock held."""
        if INTERRUPT is not None:
            self.ledger.interrupt(error)
            self.child.signal(INTERRUPT)

    # ------------------------------------------------------------------ ending

    def kill(self) -> None:
        """End it now, with the processes that its run has started; C code, too."""
        self.killed = True
        self.child.kill()


class Births:
    """When the next child may be started: later and later while they die before they are ready."""

    def __init__(self) -> None:
        self.failures, self.next_at = 0, 0.0

    @property
    def hopeless(self) -> bool:
        """Say whether so many starts have failed in a row that others should get the messages."""
        return self.failures >= HOPELESS

    def failed(self, reason: str) -> None:
        """Note a failed start."""
        pause = min(30.0, 0.1 * 2**self.failures) * random.uniform(0.5, 1.0)
        self.failures += 1
        level = logging.ERROR if self.hopeless else logging.WARNING
        log.log(level, "%s; the next try follows in %.1f s", reason, pause)
        self.pause(pause)

    def pause(self, seconds: float) -> None:
        """Start none for so long."""
        self.next_at = time.monotonic() + seconds


def limits_in_child(job: Job | None) -> tuple[float, float]:
    """Return (soft, hard) of a job, 0 for none; where no signal can tell a child, soft is hard."""
    if job is None or job.claims is None:
        return 0.0, 0.0
    soft, hard = limits_of(job)
    return (soft, hard) if INTERRUPT is not None else (0.0, min(soft or hard, hard or soft))


def death(code: int) -> Outcome:
    """Return the outcome of the run in which a child died.

    Somebody's SIGTERM is no fault of the message; any other death counts toward poison.
    """
    if code == -int(signal.SIGTERM):
        return Requeue()
    return Crashed(code)


def end(job: Job, outcome: Outcome) -> None:
    """Finish a job."""
    try:
        finish(job, outcome)
    except Exception:  # an owner's own error must not cost us the other jobs
        log.exception("the owner of %s does not take its outcome", job.id)
