"""`AsyncResult`: what became of a call."""

from __future__ import annotations

import datetime
import types
from collections.abc import Iterator
from typing import Any

from dateutil.parser import isoparse
from kombu.utils.objects import cached_property
from vine import Thenable, promise

from .. import _state, states
from .._upward import LateModule
from ..exceptions import TimeoutError
from .calls import Calling

try:
    import tblib
except ImportError:
    tblib = None

__all__ = ["AsyncResult"]
_public = LateModule("result")


def _told(name: str, doc: str) -> Any:
    """Return a property: what is stored under this name."""
    return property(lambda self: self._get_task_meta().get(name), doc=doc)


@Thenable.register
class AsyncResult(Calling):
    """What became of a call, by its id. Nothing is asked of any server before you ask.

    `task_name` is accepted and not needed. Without `app` it is the current one's.
    """

    app: Any = None
    TimeoutError = TimeoutError
    id: Any = None
    backend: Any = None

    def __init__(
        self,
        id: Any,
        backend: Any = None,
        task_name: Any = None,
        app: Any = None,
        parent: Any = None,
    ) -> None:
        if id is None:
            raise ValueError(f"AsyncResult requires valid id, not {type(id)}")
        self.app = _state.app_or_default(app or self.app)
        self.id = id
        self.backend = backend or self.app.backend
        self.parent = parent
        self._cache: Any = None
        self._ignored = False

    @cached_property
    def on_ready(self) -> Any:
        """A promise, fulfilled when this process learns that the task has ended."""
        made = promise(self._on_fulfilled, weak=True)
        if self._cache and self._cache.get("status") in states.READY_STATES:
            made(self)
        return made

    @property
    def ignored(self) -> bool:
        """Whether nothing is stored about it: `get` returns None at once."""
        return getattr(self, "_ignored", False)

    @ignored.setter
    def ignored(self, value: bool) -> None:
        self._ignored = value

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Have a function called when this process learns that the task has ended."""
        self.backend.add_pending_result(self, weak=weak)
        return self.on_ready.then(callback, on_error)

    def _on_fulfilled(self, result: Any) -> Any:
        self.backend.remove_pending_result(self)
        return result

    def _fulfil(self) -> None:
        if "on_ready" in self.__dict__:
            self.on_ready(self)
        else:
            self._on_fulfilled(self)

    # ---------------------------------------------------------------- waiting

    def get(
        self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5,
        no_ack: bool = True, follow_parents: bool = True, callback: Any = None,
        on_message: Any = None, on_interval: Any = None, disable_sync_subtasks: bool = True,
        EXCEPTION_STATES: Any = states.EXCEPTION_STATES,
        PROPAGATE_STATES: Any = states.PROPAGATE_STATES,
    ) -> Any:  # fmt: skip
        """Wait until the task has ended; return its value, or raise its exception.

        With propagate=False the exception is returned. Blocks.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds.
            RuntimeError: called inside a task, without disable_sync_subtasks=False.
        """
        if self.ignored:
            return None
        if disable_sync_subtasks:
            _public.assert_will_not_block()
        told = promise() if on_interval else None
        if follow_parents and propagate and self.parent:
            told = promise(self._maybe_reraise_parent_error, weak=True)
            self._maybe_reraise_parent_error()
        if told is not None and on_interval:
            told.then(on_interval)
        if self._cache:
            if propagate:
                self.maybe_throw(callback=callback)
            return self.result
        self.backend.add_pending_result(self)
        return self.backend.wait_for_pending(
            self, timeout=timeout, interval=interval, on_interval=told, no_ack=no_ack,
            propagate=propagate, callback=callback, on_message=on_message,
        )  # fmt: skip

    wait = get

    def _maybe_reraise_parent_error(self) -> None:
        nodes = list(self._parents())[::-1]
        if getattr(self.backend, "native", False) is True:  # else one is read after the other
            nodes = self.backend.ended_of(nodes)
        for node in nodes:
            node.maybe_throw()

    def _parents(self) -> Iterator[Any]:
        node = self.parent
        while node:
            yield node
            node = node.parent

    # ---------------------------------------------------------------- what is stored

    def _get_task_meta(self) -> Any:
        if self._cache is None:
            return self._maybe_set_cache(self.backend.get_task_meta(self.id))
        return self._cache

    def _maybe_set_cache(self, meta: Any) -> Any:
        if not meta or meta["status"] not in states.READY_STATES:
            return meta
        kept = self._set_cache(self.backend.meta_from_decoded(meta))
        self._fulfil()
        return kept

    def _set_cache(self, d: Any) -> Any:
        if children := d.get("children"):
            d["children"] = [_public.result_from_tuple(child, self.app) for child in children]
        self._cache = d
        return d

    def _iter_meta(self, **kwargs: Any) -> Iterator[Any]:
        return iter([self._get_task_meta()])

    @property
    def result(self) -> Any:
        """The value or the exception; what `update_state` has told, before the end."""
        return self._get_task_meta()["result"]

    info = result

    @property
    def state(self) -> Any:
        """PENDING (also of an id that nobody knows), STARTED, RETRY, SUCCESS, FAILURE, ..."""
        return self._get_task_meta()["status"]

    status = state

    @property
    def traceback(self) -> Any:
        """The worker's traceback as text."""
        return self._get_task_meta().get("traceback")

    @property
    def date_done(self) -> Any:
        """When it has ended."""
        done = self._get_task_meta().get("date_done")
        return isoparse(done) if done and not isinstance(done, datetime.datetime) else done

    name = _told("name", "The name of the task; this and the following need `result_extended`.")
    args = _told("args", "Its arguments by position.")
    kwargs = _told("kwargs", "Its arguments by name.")
    worker = _told("worker", "Where it ran.")
    retries = _told("retries", "How often it was retried.")
    queue = _told("queue", "Where its message waited.")

    def exists(self) -> bool:
        """Say whether anything is stored about it."""
        return self.backend.task_result_exists(self.id)

    def ready(self) -> bool:
        """Say whether it has ended."""
        return self.state in self.backend.READY_STATES

    def successful(self) -> bool:
        """Say whether it has returned."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Say whether it has raised, or could not run."""
        return self.state == states.FAILURE

    def throw(self, *args: Any, **kwargs: Any) -> None:
        """Raise an exception, after those who wait for the promise have been told."""
        self.on_ready.throw(*args, **kwargs)

    def maybe_throw(self, propagate: bool = True, callback: Any = None) -> Any:
        """Raise its exception if it has failed; else return its value."""
        meta = self._get_task_meta() if self._cache is None else self._cache
        state, value, trace = meta["status"], meta["result"], meta.get("traceback")
        if propagate and state in states.PROPAGATE_STATES:
            self.throw(value, self._to_remote_traceback(trace))
        if callback is not None:
            callback(self.id, value)
        return value

    maybe_reraise = maybe_throw

    def _to_remote_traceback(self, tb: Any) -> Any:
        if tb and tblib is not None and self.app.conf.task_remote_tracebacks:
            return tblib.Traceback.from_string(tb).as_traceback()
        return None

    # ---------------------------------------------------------------- acting

    def forget(self) -> None:
        """Delete what is stored about it, and about its parents."""
        self._cache = None
        if self.parent:
            self.parent.forget()
        self.backend.remove_pending_result(self)
        self.backend.forget(self.id)

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: Any = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Have it not run, or with `terminate` end it."""
        self.app.control.revoke(
            self.id, connection=connection, terminate=terminate, signal=signal, reply=wait,
            timeout=timeout,
        )  # fmt: skip

    def revoke_by_stamped_headers(
        self,
        headers: Any,
        connection: Any = None,
        terminate: bool = False,
        signal: Any = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Have all that have these stamps not run."""
        self.app.control.revoke_by_stamped_headers(
            headers, connection=connection, terminate=terminate, signal=signal, reply=wait,
            timeout=timeout,
        )  # fmt: skip

    # ---------------------------------------------------------------- as an object

    def as_tuple(self) -> Any:
        """Return ((id, its parent so), None), which `result_from_tuple` reads."""
        return (self.id, self.parent and self.parent.as_tuple()), None

    def as_list(self) -> list[Any]:
        """Return its id, and those of its parents."""
        return [self.id, *(self.parent.as_list() if self.parent is not None else ())]

    @property
    def task_id(self) -> Any:
        """As `id`."""
        return self.id

    @task_id.setter
    def task_id(self, id: Any) -> None:
        self.id = id

    @property
    def supports_native_join(self) -> bool:
        """Whether the backend waits for many at once."""
        return self.backend.supports_native_join

    __class_getitem__: Any = classmethod(types.GenericAlias)

    def __str__(self) -> str:
        return str(self.id)

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __eq__(self, other: object) -> Any:
        if isinstance(other, AsyncResult):
            return other.id == self.id
        return other == self.id if isinstance(other, str) else NotImplemented

    def __copy__(self) -> Any:
        return self.__class__(self.id, self.backend, None, self.app, self.parent)

    def __reduce__(self) -> Any:
        return self.__class__, self.__reduce_args__()

    def __reduce_args__(self) -> Any:
        return self.id, self.backend, None, None, self.parent

    def __del__(self) -> None:
        if self.backend is not None:
            self.backend.remove_pending_result(self)
