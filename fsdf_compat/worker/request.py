"""A message as a worker's own code sees it: receivers, hooks, inspection, subclasses of users."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import Any

from billiard.einfo import ExceptionInfo
from kombu.utils.objects import cached_property

from fsdf_engine.contracts import outcomes

from .. import signals, states
from ..app.task import Context
from ..app.trace import task_has_custom
from ..exceptions import Ignore, Reject, Retry, TimeLimitExceeded
from ..utils.log import get_logger
from ..utils.nodenames import gethostname
from ..utils.time import maybe_iso8601, maybe_make_aware
from . import state

__all__ = ("Request", "create_request_cls")
logger = get_logger("celery.worker.request")


# What a subclass overrides to hear of its runs; one that overrides none of them costs nothing.
HOOKS = ("acknowledge", "on_accepted", "on_failure", "on_retry", "on_success", "reject")


def noop(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


class Request:
    """A message with the task that it is for.

    `message` has `headers`, `body`, `properties`, `delivery_info` and `payload`, the last being
    (args, kwargs, further headers). What a subclass overrides of HOOKS is called where the code
    runs, after the end is stored; `on_timeout` and `on_failure` also in the worker itself, when a
    limit passes, or a message ends from outside its run.
    """

    acknowledged = False
    time_start: float | None = None
    worker_pid: int | None = None
    time_limits: Any = (None, None)
    _already_revoked = False
    job: Any = None  # the engine's, of a message that it has

    def __init__(
        self, message: Any, on_ack: Any = noop, hostname: str | None = None, eventer: Any = None,
        app: Any = None, connection_errors: Any = None, request_dict: Any = None,
        task: Any = None, on_reject: Any = noop, body: Any = None, headers: Any = None,
        decoded: bool = False, utc: bool = True, **opts: Any,
    ) -> None:  # fmt: skip
        self.message, self.app, self.utc = message, app, utc
        given = self.request_dict = dict(message.headers if headers is None else headers)
        self.body = message.body if body is None else body
        payload = self.body if decoded else message.payload
        self.args, self.kwargs, self.embed = self.__payload = payload  # receivers read it so
        self.content_type = None if decoded else message.content_type
        self.content_encoding = None if decoded else message.content_encoding
        self.id, self.type = given["id"], given["task"]
        self.name = given.get("shadow") or self.type
        self.root_id, self.parent_id = given.get("root_id"), given.get("parent_id")
        self.time_limits = given.get("timelimit") or self.time_limits
        self.argsrepr, self.kwargsrepr = given.get("argsrepr", ""), given.get("kwargsrepr", "")
        self.on_ack, self.on_reject, self.eventer = on_ack, on_reject, eventer
        self.hostname = hostname or gethostname()
        self.connection_errors = connection_errors or ()
        self.task = task or app.tasks[self.type]
        ignored = given.get("ignore_result")
        self.ignore_result = self.task.ignore_result if ignored is None else ignored
        self.eta, self.expires = (self._instant(given.get(key)) for key in ("eta", "expires"))
        properties, info = message.properties or {}, message.delivery_info or {}
        self.delivery_info = {
            "exchange": info.get("exchange"),
            "routing_key": info.get("routing_key"),
            "priority": properties.get("priority", info.get("priority")),
            "redelivered": info.get("redelivered", False),
        }
        given.update(
            properties=properties, reply_to=properties.get("reply_to"), hostname=self.hostname,
            correlation_id=properties.get("correlation_id"), delivery_info=self.delivery_info,
            args=self.args, kwargs=self.kwargs,
        )  # fmt: skip

    def _instant(self, given: Any) -> Any:
        return None if given is None else maybe_make_aware(maybe_iso8601(given), self.tzlocal)

    @property
    def tzlocal(self) -> Any:
        """The zone of instants that name none."""
        return self.app.conf.timezone

    @property
    def store_errors(self) -> bool:
        """Say whether errors of this message are stored."""
        return bool(not self.ignore_result or self.task.store_errors_even_if_ignored)

    task_id = property(lambda self: self.id, lambda self, id: setattr(self, "id", id))
    task_name = property(lambda self: self.name, lambda self, name: setattr(self, "name", name))
    reply_to = property(lambda self: self.request_dict["reply_to"])
    replaced_task_nesting = property(lambda self: self.request_dict.get("replaced_task_nesting", 0))
    groups = property(lambda self: self.request_dict.get("groups", []))
    stamped_headers = property(lambda self: self.request_dict.get("stamped_headers") or [])
    stamps = property(lambda self: self.request_dict.get("stamps") or {})
    correlation_id = property(lambda self: self.request_dict["correlation_id"])
    group = property(lambda self: self.request_dict.get("group"))
    group_index = property(lambda self: self.request_dict.get("group_index"))
    chord = property(lambda self: (self.embed or {}).get("chord"))
    errbacks = property(lambda self: (self.embed or {}).get("errbacks"))

    @cached_property
    def _context(self) -> Any:
        return Context({**self.request_dict, **(self.embed or {})})

    # ---------------------------------------------------------------- how it goes

    def maybe_expire(self) -> bool:
        """Say whether it is too late to run; then it is revoked."""
        if not self.expires:
            return False
        now = datetime.now(timezone.utc if self.expires.tzinfo else None)
        if now > self.expires:
            state.revoked.add(self.id)
            return True
        return False

    def revoked(self) -> bool:
        """Say whether it is revoked, or has expired; then that is stored, and told."""
        if self._already_revoked:
            return True
        expired = self.maybe_expire()
        if not expired and self.id not in state.revoked:
            return False
        logger.info("Discarding revoked task: %s[%s]", self.name, self.id)
        self._announce_revoked("expired" if expired else "revoked", False, None, expired)
        return True

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        state.task_ready(self)
        self.task.backend.mark_as_revoked(
            self.id, reason, request=self._context, store_result=self.store_errors
        )
        self.acknowledge()
        self._already_revoked = True
        self.on_revoked(terminated, signum, expired)

    def on_revoked(self, terminated: bool, signum: Any, expired: bool) -> None:
        """Tell receivers that it does not run, or no more."""
        signals.task_revoked.send(
            sender=self.task, request=self._context, terminated=terminated, signum=signum,
            expired=expired,
        )  # fmt: skip

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End its run: its message goes back, and is then found to be revoked."""
        state.revoked.add(self.id)
        state.terminated[self.id] = signal
        if self.job is not None and pool.engine_pool is not None:
            pool.engine_pool.interrupt(self.job, outcomes.Interrupted(), kill=True)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Note that it has started."""
        self.worker_pid, self.time_start = pid, time_accepted
        state.task_accepted(self)
        if not self.task.acks_late:
            self.acknowledge()

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Log that its run has passed a limit; of a hard one call the hooks and receivers."""
        if soft:
            text = "Soft time limit (%ss) exceeded for %s[%s]"
            logger.warning(text, timeout, self.name, self.id)
            return
        logger.error("Hard time limit (%ss) exceeded for %s[%s]", timeout, self.name, self.id)
        error, task = TimeLimitExceeded(timeout), self.task
        einfo = _einfo(error)
        task.on_failure(error, self.id, self.args, self.kwargs, einfo)
        if task_has_custom(task, "after_return"):
            task.after_return(states.FAILURE, error, self.id, self.args, self.kwargs, None)
        self._tell_failure(error, einfo)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """Note that it has failed, or go on with how else it ended.

        Of an end that its run could not tell of receivers are told.
        """
        state.task_ready(self)
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, Retry):
            self.on_retry(exc_info)
        elif isinstance(error, Reject):
            self.reject(requeue=error.requeue)
        elif isinstance(error, Ignore) or not self.task.acks_late or self._acks(error):
            self._acknowledge_late()
        else:
            self.reject(requeue=False)
        if not return_ok:
            self._tell_end(error, exc_info)

    def _acks(self, error: BaseException) -> bool:
        late = isinstance(error, TimeLimitExceeded)
        task = self.task
        return bool(task.acks_on_timeout if late else task.acks_on_failure)

    def _acknowledge_late(self) -> None:
        if self.task.acks_late:
            self.acknowledge()

    def _tell_end(self, error: Any, exc_info: Any) -> None:
        task = self.task
        task.request_stack.push(self._context)
        try:
            self._tell_failure(error, exc_info)
        finally:
            task.request_stack.pop()
        logger.error("Task handler raised error: %r", error, exc_info=exc_info.exc_info)

    def _tell_failure(self, error: BaseException, einfo: Any) -> None:
        signals.task_failure.send(
            sender=self.task, task_id=self.id, exception=error, args=self.args,
            kwargs=self.kwargs, traceback=error.__traceback__, einfo=einfo,
        )  # fmt: skip
        error.__traceback__ = None  # its frames hold this request

    def on_success(self, failed__retval__runtime: Any, **kwargs: Any) -> None:
        """Note how its run has ended: (failed, an ExceptionInfo or the value's text, seconds)."""
        failed, told, _ = failed__retval__runtime
        if failed:
            self.on_failure(told, return_ok=True)
        else:
            state.task_ready(self, successful=True)
            self._acknowledge_late()

    def on_retry(self, exc_info: Any) -> None:
        """Note that another attempt follows."""
        self._acknowledge_late()

    def acknowledge(self) -> None:
        """Let its message be over, unless it is."""
        if not self.acknowledged:
            self.on_ack(logger, self.connection_errors)
            self.acknowledged = True

    def reject(self, requeue: bool = False) -> None:
        """Let its message be rejected, unless it is over."""
        if not self.acknowledged:
            self.on_reject(logger, self.connection_errors, requeue)
            self.acknowledged = True

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return what is shown of it."""
        return {
            "id": self.id,
            "name": self.name,
            "args": self.argsrepr if safe else self.args,
            "kwargs": self.kwargsrepr if safe else self.kwargs,
            "type": self.type,
            "hostname": self.hostname,
            "time_start": self.time_start,
            "acknowledged": self.acknowledged,
            "delivery_info": self.delivery_info,
            "worker_pid": self.worker_pid or os.getpid(),
        }

    def humaninfo(self) -> str:
        """Return its name and id."""
        return f"{self.name}[{self.id}]"

    def __str__(self) -> str:
        eta = f" ETA:[{self.eta}]" if self.eta else ""
        return f"{self.humaninfo()}{eta}" + (f" expires:[{self.expires}]" if self.expires else "")

    def __repr__(self) -> str:
        shown = f"{self.humaninfo()} {self.argsrepr} {self.kwargsrepr}"
        return f"<{type(self).__name__}: {shown}>"


def _einfo(error: Exception) -> Any:
    try:
        raise error
    except Exception:
        return ExceptionInfo()


def create_request_cls(
    base: type, task: Any, pool: Any, hostname: str, eventer: Any, **kwargs: Any
) -> type:
    """Return the class of a task's requests."""
    return type("Request", (base,), {})
