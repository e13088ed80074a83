"""How results are waited for on Redis where the engine does not do it: by subscribing."""

from __future__ import annotations

import select
import selectors
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .. import states
from .._upward import LateModule
from ..backends.asynchronous import BaseResultConsumer

__all__ = ["ResultConsumer", "socket_readable"]
_public = LateModule("backends.redis")
_NO_SOCKET = object()


class _LockDepth(threading.local):
    value = 0  # how often this thread has the lock


def socket_readable(sock: Any, timeout: float | None) -> bool:
    """Wait until a socket can be read; so it says of one that is closed, too."""
    try:
        if (poll := getattr(select, "poll", None)) is not None:  # a hub's own, if it is patched
            poller = poll()
            poller.register(sock, select.POLLIN)
            return bool(poller.poll(None if timeout is None else timeout * 1000))
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            return bool(selector.select(timeout))
    except (OSError, ValueError):
        return True


class ResultConsumer(BaseResultConsumer):
    """Subscribes to the channels of tasks. Any thread.

    One operation at a time uses the connection, under a lock; a subscription that the garbage
    collector ends, in whatever is being done, is left to who has the lock.
    """

    _pubsub: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._get_key_for_task = self.backend.get_key_for_task
        self._decode_result = self.backend.decode_result
        self._ensure = self.backend.ensure
        self._connection_errors = self.backend.connection_errors
        self.subscribed_to: set[Any] = set()
        self._reset_sync()

    def _reset_sync(self) -> None:
        self._pubsub_lock = threading.RLock()
        self._pending_unsubscribe: set[Any] = set()
        self._pubsub_read = threading.Condition(self._pubsub_lock)
        self._socket_waiter = False  # one thread waits on the socket, the others for that one
        self._lock_depth = _LockDepth()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with self._pubsub_lock:
                self._lock_depth.value += 1
                try:
                    yield
                finally:
                    self._lock_depth.value -= 1
        except BaseException:
            try:
                self._flush_pending_unsubscribe()
            except Exception:  # of other results; not to hide this one's error
                _public.logger.exception("Failed to unsubscribe pending results")
            raise
        self._flush_pending_unsubscribe()

    # ---------------------------------------------------------------- the connection

    def start(self, initial_task_id: Any, **kwargs: Any) -> None:
        """Connect, and subscribe to a first task."""
        with self._locked():
            self._pubsub = self._new_pubsub()
            self._consume_from(initial_task_id)

    def _new_pubsub(self) -> Any:
        return self.backend.client.pubsub(ignore_subscribe_messages=True)

    def stop(self) -> None:
        """Disconnect."""
        with self._locked():
            if self._pubsub is not None:
                self._pubsub.close()

    def on_after_fork(self) -> None:
        """Let go of what is the parent's."""
        self._reset_sync()
        try:
            self.backend.client.connection_pool.reset()
            with self._locked():
                if self._pubsub is not None:
                    self._pubsub.close()
        except KeyError as error:
            _public.logger.warning(str(error))
        super().on_after_fork()

    def _reconnect(self) -> None:
        self._ensure(self._reconnect_pubsub, ())

    def _reconnect_pubsub(self) -> None:
        """Connect anew; what has been stored meanwhile is read."""
        with self._locked():
            self._pubsub = None
            self.backend.client.connection_pool.reset()
            if self.subscribed_to:
                for found in self.backend.client.mget(self.subscribed_to):
                    if found:
                        self.on_state_change(self._decode_result(found), None)
            self._pubsub = self._new_pubsub()
            self.subscribed_to -= self._pending_unsubscribe  # this connection never was
            self._pending_unsubscribe.clear()
            if self.subscribed_to:
                self._pubsub.subscribe(*self.subscribed_to)
                return
            pool = self._pubsub.connection_pool
            try:
                self._pubsub.connection = pool.get_connection()
            except TypeError:  # redis-py before 5.3
                self._pubsub.connection = pool.get_connection("pubsub")
            self._pubsub.connection.register_connect_callback(self._pubsub.on_connect)

    # ---------------------------------------------------------------- receiving

    def on_state_change(self, meta: Any, message: Any) -> None:
        """Tell who waits; an end is the last that is received of a task."""
        super().on_state_change(meta, message)
        self._maybe_cancel_ready_task(meta)

    def _maybe_cancel_ready_task(self, meta: Any) -> None:
        if meta["status"] in states.READY_STATES:
            self.cancel_for(meta["task_id"])

    def on_wait_for_pending(self, result: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Look for what is there already."""
        for meta in result._iter_meta(**kwargs):
            if meta is None:
                continue
            self.on_state_change(meta, None)
            if meta["status"] in (states.SUCCESS, states.FAILURE):  # who waits has it now
                pending = self.backend._pending_messages
                try:
                    pending.total -= len(pending.pop(meta["task_id"]))
                except KeyError:
                    pass

    def drain_events(self, timeout: float | None = None) -> None:
        """Receive what comes within a time; blocks without the lock."""
        with self._locked():
            pubsub = self._pubsub
            if pubsub is not None:
                if self._socket_waiter:
                    self._pubsub_read.wait(1.0 if timeout is None else timeout)
                    return
                if self._drain_one(pubsub, timeout):
                    return
                self._socket_waiter = True
        if pubsub is None:
            if timeout:
                _public.time.sleep(timeout)  # there is no socket yet to wait on
            return
        readable = False
        try:
            readable = self._wait_for_pubsub(pubsub, timeout)
        finally:
            with self._locked():
                self._socket_waiter = False
                try:
                    if readable and self._pubsub is pubsub:
                        self._drain_one(pubsub, timeout)
                finally:
                    self._pubsub_read.notify_all()

    def _drain_one(self, pubsub: Any, timeout: float | None) -> bool:
        """Receive one message; False if none is there, also in the parser's own buffer."""
        with self.reconnect_on_error():
            connection = pubsub.connection
            if not pubsub.subscribed or connection is None or not connection.can_read(timeout=0):
                return False
            message = pubsub.get_message(timeout=timeout)
            if message and message["type"] == "message":
                self.on_state_change(self._decode_result(message["data"]), message)
        return True

    def _wait_for_pubsub(self, pubsub: Any, timeout: float | None) -> Any:
        wait = 1.0 if timeout is None else min(timeout, 1.0)  # nobody wakes us to a new socket
        if not pubsub.subscribed:
            return pubsub.subscribed_event.wait(wait)
        sock = getattr(pubsub.connection, "_sock", _NO_SOCKET)
        if sock is _NO_SOCKET:  # another redis-py: look once in a while
            _public.time.sleep(wait)
            return True
        return True if sock is None else _public._socket_readable(sock, wait)

    # ---------------------------------------------------------------- subscriptions

    def consume_from(self, task_id: Any) -> None:
        """Subscribe to a task."""
        with self._locked():
            if self._pubsub is None:
                self.start(task_id)
            else:
                self._consume_from(task_id)

    def _consume_from(self, task_id: Any) -> None:
        key = self._get_key_for_task(task_id)
        self._pending_unsubscribe.discard(key)
        if key not in self.subscribed_to:
            self.subscribed_to.add(key)
            with self.reconnect_on_error():
                self._pubsub.subscribe(key)

    def cancel_for(self, task_id: Any) -> None:
        """Unsubscribe from a task, now or when the lock is free. Never blocks."""
        self._pending_unsubscribe.add(self._get_key_for_task(task_id))
        self._flush_pending_unsubscribe()

    def _flush_pending_unsubscribe(self) -> None:
        if self._lock_depth.value:
            return
        # looked at again after each release: who came meanwhile may not have got the lock
        while self._pending_unsubscribe and self._pubsub_lock.acquire(blocking=False):
            self._lock_depth.value += 1
            try:
                while self._pending_unsubscribe:
                    key = self._pending_unsubscribe.pop()
                    if key in self.subscribed_to:
                        self.subscribed_to.discard(key)
                        if self._pubsub:
                            with self.reconnect_on_error():
                                self._pubsub.unsubscribe(key)
            finally:
                self._lock_depth.value -= 1
                self._pubsub_lock.release()
