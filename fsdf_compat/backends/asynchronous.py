"""Backends whose results arrive by themselves, for those who make one: waiting and its parts.

Backends that the engine keeps results for need none of this; see `_backends.native`.
"""

from __future__ import annotations

import builtins
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from kombu.utils.compat import detect_environment

from .. import states
from .._backends import drainers as _drainers
from .._backends.drainers import (
    E_CELERY_RESTART_REQUIRED,
    Drainer,
    EventletAdaptedEvent,
    drainers,
    eventletDrainer,
    geventDrainer,
    greenletDrainer,
    register_drainer,
)
from .._backends.part import Part
from .._upward import adopt
from ..exceptions import TimeoutError
from ..utils.log import get_logger

__all__ = ("AsyncBackendMixin", "BaseResultConsumer", "Drainer", "register_drainer")
logger = get_logger(__name__)
E_RETRY_LIMIT_EXCEEDED = (
    "Retry limit exceeded: the connection to the result store is lost, and could not be made again."
    " Restart the program."
)
logging = _drainers.logging
adopt(
    __name__, Drainer, EventletAdaptedEvent, eventletDrainer, geventDrainer, greenletDrainer,
    register_drainer,
)  # fmt: skip


def _waiting_on(pending_results: Any, task_id: Any) -> list[Any]:
    """Return all results that wait for a task; there may be several of one id."""
    return [r for kind in pending_results for r in list(kind.get(task_id, {}).values())]


class AsyncBackendMixin(Part):
    """A backend that has a `result_consumer`, which learns of results."""

    def iter_native(self, result: Any, no_ack: bool = True, **kwargs: Any) -> Iterator[Any]:
        """Yield (id, meta) of the results in a set as they end; of a set in it its results."""
        self._ensure_not_eager()
        bucket: deque[Any] = deque()
        for node in result.results:
            if not hasattr(node, "_cache") or node._cache:  # a set, or it has ended
                bucket.append(node)
            else:
                self._collect_into(node, bucket)
        waits = self._wait_for_pending(result, no_ack=no_ack, **kwargs) if result.results else ()
        for _ in waits:
            yield from _emptied(bucket)
        yield from _emptied(bucket)

    def _collect_into(self, result: Any, bucket: deque[Any]) -> None:
        self.result_consumer.buckets[result] = bucket

    def add_pending_result(
        self, result: Any, weak: bool = False, start_drainer: bool = True
    ) -> Any:
        """Let a result be told of its end; at once if that has come already."""
        if start_drainer:
            self.result_consumer.drainer.start()
        try:
            self._maybe_resolve_from_buffer(result)
        except Empty:
            self._add_pending_result(result.id, result, weak=weak)
        return result

    def _maybe_resolve_from_buffer(self, result: Any) -> None:
        result._maybe_set_cache(self._pending_messages.take(result.id))

    def _add_pending_result(self, task_id: Any, result: Any, weak: bool = False) -> None:
        if any(r is result for r in _waiting_on(self._pending_results, task_id)):
            return
        concrete, weakly = self._pending_results
        kind: Any = WeakValueDictionary if weak else dict
        (weakly if weak else concrete).setdefault(task_id, kind())[id(result)] = result
        self.result_consumer.consume_from(task_id)

    def add_pending_results(self, results: Any, weak: bool = False) -> list[Any]:
        """Let results be told of their ends."""
        self.result_consumer.drainer.start()
        return [self.add_pending_result(r, weak=weak, start_drainer=False) for r in results]

    def remove_pending_result(self, result: Any) -> Any:
        """Let a result not be told any more; what nobody waits for is not received."""
        if not self._remove_pending_result(result):
            self.on_result_fulfilled(result)
        return result

    def _remove_pending_result(self, result: Any) -> list[Any]:
        """Forget a result, and return the others that wait for its task."""
        for kind in self._pending_results:
            if (waiters := kind.get(result.id)) is None:
                continue
            if waiters.get(id(result)) is result:
                waiters.pop(id(result), None)
            if not waiters:  # also where the last one was collected
                kind.pop(result.id, None)
        return _waiting_on(self._pending_results, result.id)

    def on_result_fulfilled(self, result: Any) -> None:
        """Stop receiving a task's results."""
        self.result_consumer.cancel_for(result.id)

    def wait_for_pending(
        self, result: Any, callback: Any = None, propagate: bool = True, **kwargs: Any
    ) -> Any:
        """Wait for a result; return its value, or raise its exception."""
        self._ensure_not_eager()
        for _ in self._wait_for_pending(result, **kwargs):
            pass
        return result.maybe_throw(callback=callback, propagate=propagate)

    def _wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        on_interval: Any = None,
        on_message: Any = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        return self.result_consumer._wait_for_pending(
            result, timeout=timeout, on_interval=on_interval, on_message=on_message, **kwargs
        )

    @property
    def is_async(self) -> bool:
        """Whether results arrive by themselves."""
        return True


def _emptied(bucket: deque[Any]) -> Iterator[tuple[Any, Any]]:
    while bucket:
        node = bucket.popleft()
        yield node.id, node._cache if hasattr(node, "_cache") else node.children


class BaseResultConsumer:
    """Receives results for a backend. Who makes one implements start, consume_from, ..."""

    _connection_errors: tuple[type[BaseException], ...] = ()  # after which it connects anew

    def __init__(
        self, backend: Any, app: Any, accept: Any, pending_results: Any, pending_messages: Any
    ) -> None:
        self.backend, self.app, self.accept = backend, app, accept
        self._pending_results, self._pending_messages = pending_results, pending_messages
        self.on_message: Any = None
        self.buckets: Any = WeakKeyDictionary()
        self.drainer = drainers[detect_environment()](self)

    def start(self, initial_task_id: Any, **kwargs: Any) -> Any:
        """Connect, and receive a first task's results."""
        raise NotImplementedError

    def stop(self) -> None:
        """Disconnect."""

    def drain_events(self, timeout: float | None = None) -> Any:
        """Receive what comes within a time."""
        raise NotImplementedError

    def consume_from(self, task_id: Any) -> Any:
        """Receive a task's results."""
        raise NotImplementedError

    def cancel_for(self, task_id: Any) -> Any:
        """Stop receiving a task's results."""
        raise NotImplementedError

    @contextmanager
    def reconnect_on_error(self) -> Iterator[None]:
        """Connect anew after what says that the connection is lost.

        Raises:
            RuntimeError: it cannot.
        """
        try:
            yield
        except builtins.TimeoutError:  # nothing has come, and nothing is lost
            raise
        except self._connection_errors:
            try:
                self._reconnect()
            except self._connection_errors as error:
                logger.critical(E_RETRY_LIMIT_EXCEEDED)
                raise RuntimeError(E_RETRY_LIMIT_EXCEEDED) from error

    def _reconnect(self) -> None:
        """Connect anew; a consumer's own."""

    def _after_fork(self) -> None:
        self.buckets.clear()
        self.buckets = WeakKeyDictionary()
        self.on_message = None
        self.on_after_fork()

    def on_after_fork(self) -> None:
        """Called in a forked child."""

    def drain_events_until(
        self, p: Any, timeout: float | None = None, on_interval: Any = None
    ) -> Iterator[Any]:
        """Receive until a promise is fulfilled."""
        return self.drainer.drain_events_until(p, timeout=timeout, on_interval=on_interval)

    def _wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        on_interval: Any = None,
        on_message: Any = None,
        **kwargs: Any,
    ) -> Iterator[None]:
        self.on_wait_for_pending(result, timeout=timeout, **kwargs)
        before, self.on_message = self.on_message, on_message
        try:
            for _ in self.drain_events_until(
                result.on_ready, timeout=timeout, on_interval=on_interval
            ):
                yield
        except builtins.TimeoutError:
            raise TimeoutError("The operation timed out.") from None
        finally:
            self.on_message = before

    def on_wait_for_pending(self, result: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Called before somebody waits: looks for what is there already."""

    def on_out_of_band_result(self, message: Any) -> None:
        """Called for a result that came by another way."""
        self.on_state_change(message.payload, message)

    def on_state_change(self, meta: Any, message: Any) -> None:
        """Tell a task's new state to those who wait."""
        if self.on_message:
            self.on_message(meta)
        if meta["status"] in states.READY_STATES:
            id = meta["task_id"]
            waiting = _waiting_on(self._pending_results, id)
            if not waiting:  # who waits may come later
                self._pending_messages.put(id, meta)
            for result in waiting:
                result._maybe_set_cache(meta)
                if (bucket := self.buckets.pop(result, None)) is not None:
                    bucket.append(result)
