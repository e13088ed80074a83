"""A Celery task: a function that is called here, and that `delay` calls elsewhere."""

from __future__ import annotations

import datetime
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from fsdf_engine import AsyncResult as EngineResult
from fsdf_engine import Options
from fsdf_engine import Task as EngineTask

from ..exceptions import MaxRetriesExceededError, NotYetSupported, Retry
from ..result import AsyncResult
from .options import arguments, sending
from .policy import CeleryPolicy
from .request import Context, request_of

if TYPE_CHECKING:
    from .base import Celery

__all__ = ["Task"]
_HOOKS = ("__call__", "before_start", "on_success", "on_failure", "on_retry", "after_return")
_NOT_YET = ("rate_limit", "track_started", "throws", "reject_on_worker_lost")


class Task:
    """One object per task and process. Subclass it for attributes and methods of your own.

    Attributes that are None take their value from `app.conf`.
    """

    app: Celery
    name: str = ""
    run: Callable[..., Any]
    queue: str | None = None
    priority: int | None = None
    expires: float | None = None
    ignore_result: bool | None = None
    acks_late: bool | None = None
    soft_time_limit: float | None = None
    time_limit: float | None = None
    max_retries: int | None = 3
    default_retry_delay: float = 180
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    retry_kwargs: ClassVar[Mapping[str, Any]] = {}
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600
    retry_jitter: bool = True
    serializer: str | None = None
    MaxRetriesExceededError = MaxRetriesExceededError

    def __init__(self) -> None:
        self._on: dict[str, EngineTask[..., Any]] = {}
        self._ignored = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if made := [hook for hook in _HOOKS if hook in vars(cls)]:
            raise NotYetSupported(
                f"{cls.__qualname__}.{made[0]}: a task's {made[0]} is not called in this version"
            )

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function, here and now."""
        return self.run(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<@task: {self.name} of {self.app.main}>"

    @property
    def request(self) -> Context:
        """The message that this run handles."""
        return request_of(self)

    # ---------------------------------------------------------------- sending

    def delay(self, /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Send a call; returns once the broker has it. `apply_async` with nothing but arguments."""
        if self.expires is not None:
            return self.apply_async(args, kwargs)
        inner = (self._on.get("") or self._default()).push(*args, **kwargs)
        return self._result(inner)

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Send a call; returns once the broker has it.

        `countdown` seconds from now, or at `eta` (a datetime), it may run; after `expires` (seconds
        or a datetime) it may no more. `queue`, `priority` (0..9), `headers`,
        `soft_time_limit` and `time_limit` (seconds) are its own.

        Raises:
            NotYetSupported: an option that this version does not know.
            ArgumentError: the arguments do not fit the function (a TypeError).
            Unavailable: the broker cannot be reached; nothing was sent.
        """
        options.setdefault("expires", self.expires)
        queue, control = sending(options, self.app.rank)
        target = self._on.get("") or self._default()
        if queue:
            target = self.on(queue)
        return self._result(target.send(*arguments(args, kwargs), task_id=task_id, **control))

    def _result(self, inner: EngineResult) -> AsyncResult:
        ignored = self._ignored
        return AsyncResult(inner.task_id, app=self.app, inner=inner, ignored=ignored)

    def AsyncResult(self, task_id: str) -> AsyncResult:  # noqa: N802
        """Return the result of a call that anybody sent."""
        return self.app.AsyncResult(task_id)

    def s(self, /, *args: Any, **kwargs: Any) -> NoReturn:
        """Not in this version."""
        raise NotYetSupported("signatures and the canvas are not implemented in this version")

    si = signature = subtask = chunks = map = starmap = apply = update_state = replace = s

    # ---------------------------------------------------------------- running

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime.datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> NoReturn:
        """Raise what makes this message run again, `countdown` seconds from now or at `eta`.

        Without either after `default_retry_delay` seconds. With no retry left `exc` is raised, or
        without it MaxRetriesExceededError; where the task was called as a function, `exc` or Retry.
        `args` and `kwargs` replace the message's; where only one is given, the parameters that it
        gives. The options of `apply_async` replace the message's, `soft_time_limit` and
        `time_limit` together: one that is not given is the task's.
        """
        if not throw:
            raise NotYetSupported("retry(throw=False) is not implemented yet; leave it out")
        request, cause = self.request, sys.exc_info()[1]
        most = self.max_retries if max_retries is None else max_retries
        if request.called_directly:
            raise exc if exc is not None else Retry("Task can be retried")
        if most is not None and request.retries >= most:
            if exc is not None:
                raise exc
            raise MaxRetriesExceededError(
                f"{self.name}[{request.id}] has used up its {most} retries",
                task_args=request.args,
                task_kwargs=request.kwargs,
            )
        when = next(w for w in (countdown, eta, self.default_retry_delay) if w is not None)
        changes = self._changes(options)
        if args is not None or kwargs is not None:
            changes |= self._arguments(args, kwargs)
        raise Retry(None, exc if exc is not None else cause, when, changes=changes)

    def _changes(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the engine changes of a message that is sent anew, for options of a call."""
        queue, changes = sending(options, self.app.rank)
        if queue:
            changes["queue"] = self.app.wire_queue(queue)
        limits = [changes.pop(name, 0.0) for name in ("soft_time_limit", "function_timeout")]
        return {**changes, "limits": limits} if any(limits) else changes

    def _arguments(
        self, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return the arguments of a retry: those that are not given stay as they were."""
        new, named = arguments(args, kwargs)
        if args is None or kwargs is None:
            signature, request = inspect.signature(self.run), self.request
            bound = signature.bind_partial(*request.args, **request.kwargs)
            bound.arguments |= signature.bind_partial(*new, **named).arguments
            new, named = bound.args, bound.kwargs
        return {"args": list(new), "kwargs": dict(named)}

    # ---------------------------------------------------------------- the engine's view

    def on(self, queue: str) -> EngineTask[..., Any]:
        """Return the engine's task for one of Celery's queues."""
        if (found := self._on.get(queue)) is None:
            found = self.app.engine.task(self.run, self.app.wire_queue(queue), **self.options())
            self._on[queue] = found
        return found

    def _default(self) -> EngineTask[..., Any]:
        self._ignored = self.ignores_result()
        self._on[""] = self.on(self.queue or self.app.conf.task_default_queue)
        return self._on[""]

    def ignores_result(self) -> bool:
        """Say whether nothing is stored about this task's runs."""
        return bool(self._setting("ignore_result"))

    def _setting(self, name: str) -> Any:
        own = getattr(self, name)
        return self.app.conf[f"task_{name}"] if own is None else own

    def options(self) -> Options:
        """Return the engine's options for this task."""
        options = self.app.options(results=not self.ignores_result())
        options["name"] = self.name
        options["ack"] = "late" if self._setting("acks_late") else "early"
        options["keep_failed"] = False  # as Celery does by its default settings
        options["cancellable"] = True
        options["specify_retry_policy"] = self._policy()
        usual = self.app.conf.task_default_priority
        options["priority"] = self.app.rank(
            (usual if self.priority is None else self.priority) or 0
        )
        options["soft_time_limit"] = float(self._setting("soft_time_limit") or 0)
        options["function_timeout"] = float(self._setting("time_limit") or 0)
        return options

    def _policy(self) -> CeleryPolicy:
        more = dict(self.retry_kwargs)
        return CeleryPolicy(
            max_retries=0,
            backoff=float(self.retry_backoff),
            backoff_max=self.retry_backoff_max,
            jitter=self.retry_jitter,
            retry_on=tuple(self.autoretry_for),
            never_on=tuple(self.dont_autoretry_for),
            limit=more.get("max_retries", self.max_retries),
            wait=more.get("countdown", self.default_retry_delay),
        )

    def unused(self) -> list[str]:
        """Return the options that were given and that this version does not use yet."""
        return [name for name in _NOT_YET if getattr(self, name, None)]
