"""What ends a message from outside its run: results, hooks, signals and log lines.

A message that expires, is revoked, passes its time limit, loses its workers, names no task or
cannot be read has no run that could say so. Its result is an effect like any other; the hooks and
receivers, which are the user's and may hang, are called by a thread of their own, after that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from queue import SimpleQueue
from threading import Thread
from types import SimpleNamespace
from typing import Any

from billiard.common import human_status
from billiard.einfo import ExceptionInfo

from fsdf_engine.contracts import Effect, Job, Member, outcomes

from .. import signals, states
from ..exceptions import (
    BackendStoreError,
    InvalidTaskError,
    NotRegistered,
    Reject,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from .index import Ambiguous
from .requests import Requests
from .run import Run
from .runner import effects_of_run

__all__ = ["Ends", "error_of"]
consumer_log = logging.getLogger("celery.worker.consumer.consumer")
request_log = logging.getLogger("celery.worker.request")
UNKNOWN = """\
Received unregistered task of type %s.
It is kept as a dead letter. Is the module that has it imported, and under the name that is sent?

Body: %s
Headers: %s
Delivery: %s"""
UNSTORED = "Cannot store how task %s[%s] ended: its message is kept as a dead letter: %r"
INVALID = """\
Received invalid task message: %s
It is kept as a dead letter.

Body: %s"""


def error_of(job: Job, outcome: Any) -> BaseException:
    """Return the exception that stands for how a message ended, with Celery's text."""
    match outcome:
        case outcomes.TimedOut(limit):
            return TimeLimitExceeded(limit)
        case outcomes.Lost(times, code):
            why = outcomes.describe(outcome) if code is None else human_status(code)
            why += f", {times} times" if code is not None and times > 1 else ""
            return WorkerLostError(f"Worker exited prematurely: {why} Job: {job.id}.")
        case outcomes.Expired():
            return TaskRevokedError("expired")
        case outcomes.Revoked():
            return TaskRevokedError("terminated" if job.id in _worker().terminated else "revoked")
        case outcomes.Unknown(task, reason):
            return NotRegistered(task, _plain(reason)) if reason else NotRegistered(task)
        case outcomes.Rejected(reason):
            return Reject(reason)
        case outcomes.Failed(SystemExit(code=code)):  # a process does not end for that
            return WorkerLostError(f"Worker exited prematurely: exitcode {code}.")
        case outcomes.Failed(KeyboardInterrupt()):
            return WorkerLostError("Worker exited prematurely: KeyboardInterrupt.")
        case outcomes.Failed(error):
            return error
    return InvalidTaskError(outcomes.describe(outcome))


def _plain(reason: str) -> str:
    """Return why an unknown task cannot be found, in words for who knows nothing of resolvers."""
    reason = reason.removeprefix(f"its resolver failed: {Ambiguous.__name__}: ")
    return reason.replace("its resolver failed", "its import failed")


def _worker() -> Any:
    return import_module("..worker.state", __package__)


class Ends:
    """The ends of one app's messages."""

    def __init__(self, app: Any, requests: Requests) -> None:
        self._app, self._requests = app, requests
        self._told: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: Thread | None = None

    def __call__(self, job: Job, outcome: outcomes.Outcome) -> list[Effect]:
        """Return the effects of an end; see `Sink`."""
        if (effects := effects_of_run(job, outcome)) is not None:
            return effects
        if not outcomes.ended(outcome):  # interrupted, say: it goes back in line
            return []
        request, task = self._request(job), self._app._tasks.get(job.plan.name)
        error = error_of(job, outcome)
        if job.delivery.lease is None and self.layout_of(job) is None:
            # left by a worker that is gone: nobody can know whether it had ended
            return self._members(job, request, states.FAILURE, error)
        run = Run(job)
        with run.collecting(self._app):
            try:
                self._store(task, request, outcome, error)
            except Exception as failure:
                why = failure.__cause__ or failure  # of a BackendStoreError: what the server said
                request_log.error(UNSTORED, request.task, job.id, why)
                raise
        self._later(lambda: self._tell(job, outcome, task, request, error))
        return run.effects

    def of_json(self, jobs: Sequence[Job], now: float) -> list[tuple[Effect, ...]]:
        """Return the effects of successes of which no more than the value is to be told."""
        return [(record,) for record in self._app.backend.successes(jobs)]

    def pass_soft_limit(self, job: Job, seconds: float) -> None:
        """Tell the request of a run that it has passed its soft limit; returns at once."""
        if (task := self._app._tasks.get(job.plan.name)) is not None:
            request = import_module("..worker.strategy", __package__).request_of
            self._later(
                lambda: request(job, task, self._requests, self._app).on_timeout(True, seconds)
            )

    def layout_of(self, job: Job) -> str | None:
        """Return the layout in which the end of a message is stored, if it is."""
        task = self._app._tasks.get(job.plan.name)
        backend = task.backend if task else self._app.backend
        if not getattr(backend, "native", False) or self._ignores(task, self._request(job)):
            return None
        return str(backend.layout_name)

    def of_end(self, job: Job, end: bytes) -> list[Effect]:
        """Return what chords are told by a stored end: they, too, of the rest of a chain."""
        if not job.extra.get("headers"):  # it is alone
            return []
        task = self._app._tasks.get(job.plan.name)
        backend = task.backend if task else self._app.backend
        meta = backend.meta_from_decoded(backend.decode(end))
        return self._members(job, self._request(job), meta["status"], meta["result"])

    def _members(self, job: Job, request: Any, state: str, result: Any) -> list[Effect]:
        task, run = self._app._tasks.get(job.plan.name), Run(job)
        backend = task.backend if task else self._app.backend
        with run.collecting(self._app):
            if state in states.PROPAGATE_STATES:
                told = {"request": request, "store_result": False, "call_errbacks": False}
                backend.mark_as_failure(request.id, result, state=state, **told)
            elif request.chord:
                backend.on_chord_part_return(request, state, result)
        return [effect for effect in run.effects if type(effect) is Member]

    def _request(self, job: Job) -> Any:
        """Return a message's request, with what can be read of its arguments."""
        context = import_module("..app.task", __package__).Context
        args, kwargs = [], {}  # type: ignore[var-annotated]
        with suppress(Exception):
            found = job.codec.envelope(job.delivery.body, job.delivery.headers)
            copy = SimpleNamespace(
                kept=(found or ({}, {}))[1], extra=job.extra, delivery=job.delivery
            )
            args, kwargs = job.codec.arguments(copy)  # type: ignore[arg-type, assignment]
        request = self._requests.of(job)
        request["task"] = job.plan.name or job.extra.get("task")
        return context(request, args=args, kwargs=kwargs, called_directly=False)

    def _store(self, task: Any, request: Any, outcome: Any, error: BaseException) -> None:
        backend = task.backend if task else self._app.backend
        ignored = self._ignores(task, request)
        stores = not ignored or bool(task and task.store_errors_even_if_ignored)
        if type(outcome) in (outcomes.Expired, outcomes.Revoked):
            reason = str(error)
            backend.mark_as_revoked(request.id, reason, request=request, store_result=stores)
        else:
            try:
                backend.mark_as_failure(request.id, error, request=request, store_result=stores)
            except BackendStoreError:  # it was tried again and again
                raise
            except Exception:
                # its links, which anybody may have written: who waits for it is told all the same
                request_log.exception("Cannot tell what is linked to %s", request.id)
                request.update(chain=None, chord=None, group=None, errbacks=None)
                backend.mark_as_failure(request.id, error, request=request, store_result=stores)

    def _ignores(self, task: Any, request: Any) -> bool:
        if "ignore_result" in vars(request):
            return bool(request.ignore_result)
        return bool(task and task.ignore_result)

    # ---------------------------------------------------------------- hooks, receivers, the log

    def _later(self, tell: Callable[[], None]) -> None:
        if self._thread is None or not self._thread.is_alive():  # a fork leaves it behind
            self._told = SimpleQueue()
            self._thread = Thread(target=self._work, name="celery-ends", daemon=True)
            self._thread.start()
        self._told.put(tell)

    def _work(self) -> None:
        while True:
            try:
                self._told.get()()
            except BaseException:  # of a hook, whatever it is: the next end is told, too
                request_log.exception("Cannot tell how a task ended")

    def _tell(self, job: Job, outcome: Any, task: Any, request: Any, error: BaseException) -> None:
        with suppress(Exception):  # what is stored after this job is stored after its end
            job.owner.commit(job, ())
        match outcome:
            case outcomes.Unknown():
                self._tell_unknown(job, request, error)
            case outcomes.Invalid():
                told = str(error), self._shown(job)
                consumer_log.error(INVALID, *told)
                signals.task_rejected.send(sender=self._app, message=job.delivery, exc=error)
            case outcomes.Expired() | outcomes.Revoked():
                self._tell_revoked(job, task, request, type(outcome) is outcomes.Expired)
            case _ if task:
                self._tell_failure(job, outcome, task, error)

    def _tell_revoked(self, job: Job, task: Any, request: Any, expired: bool) -> None:
        signum = None if expired else _worker().terminated.pop(job.id, None)
        if signum is None:
            request_log.info("Discarding revoked task: %s[%s]", request.task, job.id)
        else:
            request_log.info("Task %s[%s] revoked: terminated (%s)", request.task, job.id, signum)
        told = {"terminated": signum is not None, "signum": signum, "expired": expired}
        signals.task_revoked.send(sender=task, request=request, **told)

    def _tell_unknown(self, job: Job, request: Any, error: BaseException) -> None:
        told = error, self._shown(job), job.extra.get("headers") or {}, request.delivery_info
        consumer_log.error(UNKNOWN, *told, exc_info=error)
        signals.task_unknown.send(
            sender=self._app, message=job.delivery, exc=error, name=request.task, id=job.id
        )

    def _tell_failure(self, job: Job, outcome: Any, task: Any, error: BaseException) -> None:
        strategy = import_module("..worker.strategy", __package__)
        request = strategy.request_of(job, task, self._requests, self._app)
        if type(outcome) is outcomes.TimedOut:
            request.on_timeout(soft=False, timeout=outcome.limit)
            return
        try:
            raise error
        except BaseException:
            einfo = ExceptionInfo()
        request.on_failure(einfo)

    def _shown(self, job: Job) -> str:
        """Return the beginning of a body, for a log."""
        body = job.delivery.body
        return f"{outcomes.text_of(body[:1000], repr)} ({len(body)}b)"
