"""The task: a function that is called here, and that `delay` calls elsewhere."""

from __future__ import annotations

import inspect
import sys
import types
from typing import Any

from kombu.exceptions import OperationalError

from .._app import owning, quick, replacing, retrying, running
from .._app.context import Context
from .._app.retrying import actual_ignore_result as get_actual_ignore_result
from .._state import ContextStack, _task_stack, current_app
from ..canvas import chunks, signature, xmap, xstarmap
from ..exceptions import MaxRetriesExceededError
from ..local import class_property
from ..utils import abstract, deprecated
from ..utils.functional import mattrgetter
from ..utils.imports import instantiate
from .annotations import resolve_all as resolve_all_annotations
from .registry import _unpickle_task_v2
from .utils import appstr

__all__ = ["Context", "Task", "TaskType", "extract_exec_options", "get_actual_ignore_result"]

TaskType = type
extract_exec_options = mattrgetter(
    "queue", "routing_key", "exchange", "priority", "expires", "serializer", "delivery_mode",
    "compression", "time_limit", "soft_time_limit", "immediate", "mandatory",
)  # fmt: skip
_SAID_BY_ROUTES = (
    "queue", "exchange", "exchange_type", "routing_key", "delivery_mode", "priority",
)  # fmt: skip
R_BOUND_TASK = "<class {0.__name__} of {app}{flags}>"
R_UNBOUND_TASK = "<unbound {0.__name__}{flags}>"
R_INSTANCE = "<@task: {0.name} of {app}{flags}>"


def _reprtask(task: Any, fmt: str | None = None, flags: Any = None) -> str:
    named = [*(flags or ()), *(["v2 compatible"] if task.__v2_compat__ else [])]
    fmt = fmt or (R_BOUND_TASK if task._app else R_UNBOUND_TASK)
    app = appstr(task._app) if task._app else None
    return fmt.format(task, flags=f" ({', '.join(named)})" if named else "", app=app)


@abstract.CallableTask.register
@owning
class Task:
    """A task. Subclass it for attributes and methods of your own; there is one object a process.

    Attributes in `from_config` that are None take their value from the settings when the task is
    bound to its app.
    """

    __trace__: Any = None
    __v2_compat__ = False
    __bound__ = False
    __header__: Any
    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = OperationalError
    Strategy: Any = "celery.worker.strategy:default"
    Request: Any = "celery.worker.request:Request"

    name: Any = None
    typing: bool | None = None  # whether the arguments of calls are checked
    max_retries: int | None = 3
    default_retry_delay: Any = 180
    rate_limit: Any = None
    ignore_result: Any = None
    trail = True  # whether what a run sends is remembered as its children
    send_events = True
    store_errors_even_if_ignored: Any = None
    serializer: Any = None
    time_limit: Any = None
    soft_time_limit: Any = None
    track_started: Any = None
    acks_late: Any = None
    acks_on_failure_or_timeout: Any = None
    acks_on_failure: Any = None
    acks_on_timeout: Any = None
    reject_on_worker_lost: Any = None
    retry_on_worker_lost: Any = None
    throws: Any = ()
    expires: Any = None
    priority: Any = None
    resultrepr_maxsize = 1024
    abstract = True
    request_stack: Any = None
    from_config: Any = (
        ("serializer", "task_serializer"),
        ("rate_limit", "task_default_rate_limit"),
        ("priority", "task_default_priority"),
        ("time_limit", "task_time_limit"),
        ("soft_time_limit", "task_soft_time_limit"),
        ("track_started", "task_track_started"),
        ("acks_late", "task_acks_late"),
        ("acks_on_failure_or_timeout", "task_acks_on_failure_or_timeout"),
        ("acks_on_failure", "task_acks_on_failure"),
        ("acks_on_timeout", "task_acks_on_timeout"),
        ("reject_on_worker_lost", "task_reject_on_worker_lost"),
        ("retry_on_worker_lost", "task_retry_on_worker_lost"),
        ("ignore_result", "task_ignore_result"),
        ("store_eager_result", "task_store_eager_result"),
        ("store_errors_even_if_ignored", "task_store_errors_even_if_ignored"),
    )
    _app: Any = None
    _backend: Any = None
    _default_request: Any = None
    _exec_options: Any = None
    _dump_pydantic_arguments: Any = None
    _places: tuple[tuple[str, ...], int] | None = None
    _way: Any = None  # how calls leave, as of the last one

    # ---------------------------------------------------------------- the app

    @classmethod
    def bind(cls, app: Any) -> Any:
        """Make this a task of an app: attributes come from its settings and annotations."""
        was_bound, cls.__bound__ = cls.__bound__, True
        cls._app, cls._exec_options = app, None
        if not was_bound:
            for name in _SAID_BY_ROUTES:
                if name in cls.__dict__:
                    deprecated.warn(
                        description=f"The {name!r} task attribute",
                        removal="6.0",
                        alternative="Use the task_routes setting instead.",
                    )
        if cls.typing is None:
            cls.typing = app.strict_typing
        conf = app.conf
        for name, key in cls.from_config:
            if getattr(cls, name, None) is None:
                setattr(cls, name, conf[key])
        both = cls.acks_on_failure_or_timeout
        for name in ("acks_on_failure", "acks_on_timeout"):
            if getattr(cls, name) is None:
                setattr(cls, name, True if both is None else both)
        if not was_bound:
            cls.annotate()
            cls.request_stack = ContextStack("celery_requests")
        cls.on_bound(app)
        return app

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Do more when the task is bound to an app. Override it."""

    @classmethod
    def _get_app(cls) -> Any:
        if cls._app is None:
            cls._app = current_app
        if not cls.__bound__:
            cls.bind(cls._app)
        return cls._app

    app = class_property(_get_app, bind)

    @classmethod
    def annotate(cls) -> None:
        """Take the attributes that `task_annotations` has; `@name` wraps a method."""
        for given in resolve_all_annotations(cls.app.annotations, cls):
            for name, value in given.items():
                if name.startswith("@"):
                    cls.add_around(name[1:], value)
                else:
                    setattr(cls, name, value)

    @classmethod
    def add_around(cls, attr: str, around: Any) -> None:
        """Let `around(method)` stand for a method."""
        original = getattr(cls, attr)
        original = getattr(original, "__wrapped__", None) or original
        method = around(original)
        method.__wrapped__ = original
        setattr(cls, attr, method)

    # ---------------------------------------------------------------- here

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _task_stack.push(self)
        self.push_request(args=args, kwargs=kwargs)
        try:
            return self.run(*args, **kwargs)
        finally:
            self.pop_request()
            _task_stack.pop()

    __class_getitem__: Any = classmethod(types.GenericAlias)

    def __reduce__(self) -> Any:
        module = type(self).__module__
        return (
            _unpickle_task_v2,
            (self.name, module if module in sys.modules else None),
            None,
        )

    def __repr__(self) -> str:
        return _reprtask(self, R_INSTANCE)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Do the task's work. Every task has its own."""
        raise NotImplementedError("Tasks must define the run method.")

    apply = running.apply

    # ---------------------------------------------------------------- elsewhere

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send a call: `apply_async` with nothing but arguments."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Any = None, kwargs: Any = None, task_id: str | None = None,
        producer: Any = None, link: Any = None, link_error: Any = None,
        shadow: str | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        """Send a call; returns once the broker has it. `app.send_task` says what may be given.

        Raises:
            TypeError: the arguments do not fit the function, or are no list and no mapping.
            ValueError: the task's soft limit is beyond its hard one.
            kombu.exceptions.EncodeError: a value has no JSON form.
            kombu.exceptions.OperationalError: the broker cannot be reached.
        """
        soft, hard = self.soft_time_limit, self.time_limit
        if soft and hard and soft > hard:
            raise ValueError("soft_time_limit must be less than or equal to time_limit")
        if self.typing and (check := getattr(self, "__header__", None)):
            check(*(args or ()), **(kwargs or {}))
        shadow = shadow or self.shadow_name(args, kwargs, options)
        says_more = options or task_id or producer or link or link_error or shadow
        if not says_more and (result := quick.sent(self, args or (), kwargs or {})) is not None:
            return result
        options = {**self._get_exec_options(), **options}
        if self._dump_pydantic_arguments is not None and options.get("serializer") != "pickle":
            args, kwargs = self._dump_pydantic_arguments(args, kwargs)
        options.setdefault("ignore_result", self.ignore_result)
        app = self._get_app()
        if app.conf.task_always_eager:
            options.update(link=link, link_error=link_error)
            return running.apply_eagerly(self, args, kwargs, producer, task_id, options)
        return app.send_task(
            self.name, args, kwargs, task_id=task_id, producer=producer, link=link,
            link_error=link_error, result_cls=self.AsyncResult, shadow=shadow, task_type=self,
            **options,
        )  # fmt: skip

    def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str | None:
        """Return the name to show in logs, or None for the task's own. Override it."""

    def _get_exec_options(self) -> dict[str, Any]:
        if self._exec_options is None:
            self._exec_options = extract_exec_options(self)
        return self._exec_options

    def _parameters(self) -> tuple[tuple[str, ...], int]:
        """Return the names that positional arguments have, and how many more come before."""
        if self._places is None:
            kinds: dict[Any, list[str]] = {}
            try:
                for p in inspect.signature(self.run).parameters.values():
                    kinds.setdefault(p.kind, []).append(p.name)
            except (TypeError, ValueError):  # written in C, or it lacks the `self` that it is given
                pass
            named = kinds.get(inspect.Parameter.POSITIONAL_OR_KEYWORD, ())
            self._places = tuple(named), len(kinds.get(inspect.Parameter.POSITIONAL_ONLY, ()))
        return self._places

    def AsyncResult(self, task_id: str, **kwargs: Any) -> Any:
        """Return the result of a call that anybody has sent."""
        app = self._get_app()
        return app.AsyncResult(task_id, backend=self.backend, task_name=self.name, **kwargs)

    signature_from_request = subtask_from_request = retrying.signature_from_request
    retry = retrying.retry
    replace, add_to_chord, on_replace = (
        replacing.replace, replacing.add_to_chord, replacing.on_replace,
    )  # fmt: skip

    # ---------------------------------------------------------------- signatures

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Any:
        """Return a signature: a call that is not sent yet."""
        starkwargs.setdefault("app", self.app)
        return signature(self, args, *starargs, **starkwargs)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Any:
        """Return a signature with these arguments."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Any:
        """Return a signature that takes no further arguments, such as a parent's result."""
        return self.signature(args, kwargs, immutable=True)

    def chunks(self, it: Any, n: int) -> Any:
        """Return a signature of many calls, `n` of them in each message."""
        return chunks(self.s(), it, n, app=self.app)

    def map(self, it: Any) -> Any:
        """Return a signature of one message that calls the task for each item."""
        return xmap(self.s(), it, app=self.app)

    def starmap(self, it: Any) -> Any:
        """Return a signature of one message that calls the task with each item's arguments."""
        return xstarmap(self.s(), it, app=self.app)

    # ---------------------------------------------------------------- in a run

    @property
    def request(self) -> Any:
        """The message that this run handles; a default one where nothing runs."""
        request = self.request_stack.top
        if request is None:
            if self._default_request is None:
                self._default_request = Context()
            return self._default_request
        return request

    def _get_request(self) -> Any:
        return self.request

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Begin a request like the current one, with these changes."""
        self.request_stack.push(Context(*args, **{**self.request.__dict__, **kwargs}))

    def pop_request(self) -> None:
        """End the request that was begun last."""
        self.request_stack.pop()

    def add_trail(self, result: Any) -> Any:
        """Remember a result as a child of this run; return it."""
        if self.trail:
            self.request.children.append(result)
        return result

    def update_state(
        self, task_id: str | None = None, state: Any = None, meta: Any = None, **kwargs: Any
    ) -> None:
        """Store a state of this run, or of another one, and what is to be known of it."""
        request = self.request
        task_id = request.id if task_id is None else task_id
        self.backend.store_result(task_id, meta, state, request=request, **kwargs)

    def send_event(
        self, type_: str, retry: bool = True, retry_policy: Any = None, **fields: Any
    ) -> Any:
        """Send an event about this run to those who monitor."""
        request = self.request
        policy = retry_policy or self.app.conf.task_publish_retry_policy
        with self.app.events.default_dispatcher(hostname=request.hostname) as dispatcher:
            return dispatcher.send(
                type_, uuid=request.id, retry=retry, retry_policy=policy, **fields
            )

    def start_strategy(self, app: Any, consumer: Any, **kwargs: Any) -> Any:
        """Return what a consumer does with a message of this task."""
        return instantiate(self.Strategy, self, app, consumer, **kwargs)

    @property
    def backend(self) -> Any:
        """Where results are kept."""
        return self.app.backend if self._backend is None else self._backend

    @backend.setter
    def backend(self, value: Any) -> None:
        self._backend = value

    @property
    def __name__(self) -> str:
        return type(self).__name__  # type: ignore[return-value]

    # ---------------------------------------------------------------- hooks

    def before_start(self, task_id: Any, args: Any, kwargs: Any) -> None:
        """Be called before a run; what it raises fails the run."""

    def on_success(self, retval: Any, task_id: Any, args: Any, kwargs: Any) -> None:
        """Be called when a result has been stored."""

    def on_retry(self, exc: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        """Be called when another attempt follows."""

    def on_failure(self, exc: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any) -> None:
        """Be called when a failure has been stored."""

    def after_return(
        self, status: Any, retval: Any, task_id: Any, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Be called after a run, however it ended."""


BaseTask = Task
APPLY_ASYNC = Task.apply_async  # before others may wrap it
