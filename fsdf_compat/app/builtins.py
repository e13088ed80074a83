"""The tasks that every app has. Their names travel in messages of other programs, too."""

from __future__ import annotations

from typing import Any

from .._state import connect_on_app_finalize
from .._upward import upward
from ..canvas import chord as _chord
from ..canvas import chunks as _chunks
from ..canvas import group as _group
from ..canvas import maybe_signature, signature
from ..exceptions import ChordError, Retry
from ..result import allow_join_result, result_from_tuple
from ..utils.log import get_logger

__all__: list[str] = []
logger = get_logger("celery.app.builtins")


@connect_on_app_finalize
def add_backend_cleanup_task(app: Any) -> Any:
    """Add the task that deletes results that have expired; beat sends it each night."""

    @app.task(name="celery.backend_cleanup", shared=False, lazy=False)
    def backend_cleanup() -> None:
        app.backend.cleanup()

    return backend_cleanup


@connect_on_app_finalize
def add_accumulate_task(app: Any) -> Any:
    """Add the task that returns its arguments, or one of them: the end of a replaced group."""

    @app.task(bind=True, name="celery.accumulate", shared=False, lazy=False)
    def accumulate(self: Any, *args: Any, **kwargs: Any) -> Any:
        index = kwargs.get("index")
        return args if index is None else args[index]

    return accumulate


@connect_on_app_finalize
def add_unlock_chord_task(app: Any) -> Any:
    """Add the task that looks whether a chord is complete, where its backend cannot count."""

    @app.task(
        name="celery.chord_unlock", max_retries=None, shared=False,
        default_retry_delay=app.conf.result_chord_retry_interval, ignore_result=True, lazy=False,
        bind=True,
    )  # fmt: skip
    def unlock_chord(
        self: Any, group_id: Any, callback: Any, interval: Any = None, max_retries: Any = None,
        result: Any = None, Result: Any = app.AsyncResult, GroupResult: Any = app.GroupResult,
        result_from_tuple: Any = result_from_tuple, **kwargs: Any,
    ) -> None:  # fmt: skip
        members = [result_from_tuple(each, app=app) for each in result]
        header = GroupResult(group_id, members, app=app)
        body = maybe_signature(callback, app=app)
        again = {
            "countdown": self.default_retry_delay if interval is None else interval,
            "max_retries": max_retries,
        }
        kind = kwargs.get("_chord_unlock_exchange_type")
        if kind is not None:
            again["exchange_type"] = kind
        _await_header(self, app, header, body, again)
        _send_body(app, header, body)

    return unlock_chord


@connect_on_app_finalize
def add_chord_error_task(app: Any) -> Any:
    """Add the task that lets a chord fail whose errbacks are functions, which are called in it."""

    @app.task(
        name="celery.chord_error", shared=False, ignore_result=True, acks_late=True, lazy=False
    )
    def chord_failed(body: Any, message: str, cause: Any = None) -> None:
        make = upward("backends.base")._create_chord_error_with_cause
        try:
            raise make(message=message, original_exc=app.backend.exception_to_python(cause))
        except ChordError as error:
            app.backend.chord_error_from_stack(maybe_signature(body, app=app), error)

    return chord_failed


def _await_header(task: Any, app: Any, header: Any, body: Any, again: dict[str, Any]) -> None:
    """Retry until all members of a chord have ended; where that cannot go on, the chord fails."""
    failed: Any = None
    try:
        try:
            ready = header.ready()
        except Exception as error:
            failed = error
            raise task.retry(exc=error, **again) from error
        if not ready:
            raise task.retry(**again)
    except Retry:
        raise
    except Exception as error:  # nobody will look again
        logger.exception("Chord %r: chord_unlock could not be retried: %r", header.id, error)
        cause = getattr(error, "reason", None) or error
        reason = f"chord_unlock could not be retried: {cause!r}"
        if failed is not None and failed is not cause:
            reason += f" (after deps.ready() raised {failed!r})"
        _fail(app, body, reason, cause)
        raise


def _send_body(app: Any, header: Any, body: Any) -> None:
    """Send the body of a chord with the results of its header, or let it fail."""
    join = header.join_native if header.supports_native_join else header.join
    try:
        with allow_join_result():
            values = join(timeout=app.conf.result_chord_join_timeout, propagate=True)
    except Exception as error:
        culprit = next(header._failed_join_report(), None)
        reason = f"Dependency {culprit.id} raised {error!r}" if culprit else repr(error)
        logger.exception("Chord %r raised: %r", header.id, error)
        _fail(app, body, reason, error)
        return
    try:
        app.amqp._retry_publish(body.delay, values)
    except Exception as error:
        logger.exception("Chord %r raised: %r", header.id, error)
        _fail(app, body, f"Callback error: {error!r}", error)


def _fail(app: Any, body: Any, reason: str, cause: Any) -> None:
    make = upward("backends.base")._create_chord_error_with_cause
    error = make(message=reason, original_exc=cause)
    app.backend.chord_error_from_stack(callback=body, exc=error)


@connect_on_app_finalize
def add_map_task(app: Any) -> Any:
    """Add the task that calls another one for each item."""

    @app.task(name="celery.map", shared=False, lazy=False)
    def xmap(task: Any, it: Any) -> list[Any]:
        task = signature(task, app=app).type
        return [task(item) for item in it]

    return xmap


@connect_on_app_finalize
def add_starmap_task(app: Any) -> Any:
    """Add the task that calls another one with the arguments of each item."""

    @app.task(name="celery.starmap", shared=False, lazy=False)
    def xstarmap(task: Any, it: Any) -> list[Any]:
        task = signature(task, app=app).type
        return [task(*item) for item in it]

    return xstarmap


@connect_on_app_finalize
def add_chunk_task(app: Any) -> Any:
    """Add the task that sends the calls of a part of many."""

    @app.task(name="celery.chunks", shared=False, lazy=False)
    def chunks(task: Any, it: Any, n: int) -> Any:
        return _chunks.apply_chunks(task, it, n)

    return chunks


@connect_on_app_finalize
def add_group_task(app: Any) -> Any:
    """Add the task that sends a group; old programs name it."""

    @app.task(name="celery.group", bind=True, shared=False, lazy=False)
    def group(
        self: Any, tasks: Any, result: Any, group_id: Any, partial_args: Any,
        add_to_parent: bool = True,
    ) -> Any:  # fmt: skip
        app = self.app
        result = result_from_tuple(result, app)
        with app.producer_or_acquire() as producer:
            for task in tasks:
                call = maybe_signature(task, app=app).clone(partial_args)
                call.apply_async(group_id=group_id, producer=producer, add_to_parent=False)
        if add_to_parent and (parent := app.current_worker_task):
            parent.add_trail(result)
        return result

    return group


@connect_on_app_finalize
def add_chain_task(app: Any) -> Any:
    """Add a name that old programs know."""

    @app.task(name="celery.chain", shared=False, lazy=False)
    def chain(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("chain is not a real task")

    return chain


@connect_on_app_finalize
def add_chord_task(app: Any) -> Any:
    """Add the task that sends a chord; old programs name it."""

    @app.task(name="celery.chord", bind=True, ignore_result=False, shared=False, lazy=False)
    def chord(
        self: Any, header: Any, body: Any, partial_args: Any = (), interval: Any = None,
        countdown: Any = 1, max_retries: Any = None, eager: bool = False, **kwargs: Any,
    ) -> Any:  # fmt: skip
        app = self.app
        tasks = header.tasks if isinstance(header, _group) else header
        header = _group([maybe_signature(task, app=app) for task in tasks], app=app)
        body = maybe_signature(body, app=app)
        run = _chord(header, body).run
        return run(header, body, partial_args, app, interval, countdown, max_retries, **kwargs)

    return chord
