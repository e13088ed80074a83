"""`Backend`: what is stored of tasks, groups and chords, wherever that is."""

from __future__ import annotations

import logging
import sys
import warnings
from collections import namedtuple
from collections.abc import Callable
from functools import partial
from typing import Any

from kombu.serialization import prepare_accept_content
from kombu.serialization import registry as serializer_registry
from kombu.utils.url import maybe_sanitize_url

from .. import states
from .._state import current_app, get_current_task
from .._upward import LateModule
from ..exceptions import BackendGetMetaError, BackendStoreError, TaskRevokedError, TimeoutError
from ..utils.collections import BufferMap
from ..utils.functional import LRUCache
from ..utils.serialization import raise_with_context
from ..utils.time import get_exponential_backoff_interval
from .encoding import Encoding
from .failing import Failing
from .retries import warn_of_retry
from .unlocking import send_unlock

__all__ = ["Backend", "_nulldict", "pending_results_t", "unpickle_backend"]
logger = logging.getLogger("celery.backends.base")
_public = LateModule("backends.base")
MESSAGE_BUFFER_MAX = 8192
pending_results_t = namedtuple("pending_results_t", ("concrete", "weak"))


def unpickle_backend(cls: Any, args: Any, kwargs: Any) -> Any:
    """Return a backend of the current app."""
    return cls(*args, app=current_app._get_current_object(), **kwargs)


class _nulldict(dict):
    """A cache that keeps nothing."""

    def ignore(self, *a: Any, **kw: Any) -> None:
        """Keep nothing."""

    __setitem__ = update = setdefault = ignore


class Backend(Encoding, Failing):
    """Where results are kept. A subclass has `_store_result`, `_get_task_meta_for` and others."""

    TimeoutError = TimeoutError

    subpolling_interval: float | None = None
    supports_native_join = False  # `get_many` is there
    supports_autoexpire = False  # what is stored ends by itself, and nothing has to clean up
    supports_failure_expires = False  # failures may have another life
    retry_policy = {
        "max_retries": 20, "interval_start": 0, "interval_step": 1, "interval_max": 1,
    }  # fmt: skip

    def __init__(
        self,
        app: Any,
        serializer: Any = None,
        max_cached_results: Any = None,
        accept: Any = None,
        expires: Any = None,
        expires_type: Any = None,
        url: Any = None,
        **kwargs: Any,
    ) -> None:
        self.app = app
        conf = app.conf
        self.serializer = serializer or conf.result_serializer
        self.content_type, self.content_encoding, self.encoder = serializer_registry._encoders[
            self.serializer
        ]
        self.compression = self.prepare_compression(conf.get("result_compression"))
        limit = max_cached_results or conf.result_cache_max
        self._cache: Any = _nulldict() if limit == -1 else LRUCache(limit=limit)
        self.expires = self.prepare_expires(expires, expires_type)
        given = (accept, conf.result_accept_content, conf.accept_content)
        self.accept = prepare_accept_content(next((a for a in given if a is not None), None))
        if conf.get("result_failure_expires") is not None and not self.supports_failure_expires:
            self._warn("does not support result_failure_expires: failures last as other results")
        self.always_retry = conf.get("result_backend_always_retry", False)
        self.max_sleep_between_retries_ms = conf.get(
            "result_backend_max_sleep_between_retries_ms", 10000
        )
        self.base_sleep_between_retries_ms = conf.get(
            "result_backend_base_sleep_between_retries_ms", 10
        )
        self.max_retries = conf.get("result_backend_max_retries", float("inf"))
        self.thread_safe = conf.get("result_backend_thread_safe", False)
        self._pending_results = pending_results_t({}, {})
        self._pending_messages = BufferMap(MESSAGE_BUFFER_MAX)
        self.url = url

    @property
    def native(self) -> bool:
        """Whether the engine keeps the results: see `_backends.native`."""
        return False

    def as_uri(self, include_password: bool = False) -> Any:
        """Return its URL, by default without the password."""
        if include_password:
            return self.url
        url = maybe_sanitize_url(self.url or "")
        return url[:-1] if url.endswith(":///") else url

    # ---------------------------------------------------------------- what has happened

    def mark_as_started(self, task_id: Any, **meta: Any) -> Any:
        """Tell that a task has started."""
        return self.store_result(task_id, meta, states.STARTED)

    def mark_as_done(
        self,
        task_id: Any,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        """Tell that a task has returned."""
        if store_result and not (request is not None and request.ignore_result):
            self.store_result(task_id, result, state, request=request)
        if request and request.chord:
            self.on_chord_part_return(request, state, result)

    def mark_as_failure(
        self,
        task_id: Any,
        exc: Any,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Tell that a task has failed, to all whom that concerns: chord, chain, errbacks."""
        if store_result:
            self.store_result(task_id, exc, state, traceback=traceback, request=request)
        if not request:
            return
        if request.chord:
            self.on_chord_part_return(request, state, exc)
        self._fail_chain(
            getattr(request, "chain", None), exc, traceback, store_result=store_result, state=state
        )
        if call_errbacks and request.errbacks:
            self._call_task_errbacks(request, exc, traceback)

    def mark_as_revoked(
        self,
        task_id: Any,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Tell that a task is not to run."""
        exc = TaskRevokedError(reason)
        if store_result:
            self.store_result(task_id, exc, state, traceback=None, request=request)
        if request and request.chord:
            self.on_chord_part_return(request, state, exc)

    def mark_as_retry(
        self,
        task_id: Any,
        exc: Any,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        state: str = states.RETRY,
    ) -> Any:
        """Tell that a task is tried again."""
        return self.store_result(task_id, exc, state, traceback=traceback, request=request)

    # ---------------------------------------------------------------- storing and reading

    def _sleep(self, amount: float) -> None:
        _public.time.sleep(amount)

    def _ensure_retryable(
        self,
        func: Callable[..., Any],
        *args: Any,
        fallback_exc: Any = None,
        fallback_msg: Any = None,
        max_retries: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Call what asks the store; with `result_backend_always_retry` again and again. Blocks."""
        limit = self.max_retries if max_retries is None else max_retries
        retries, handled = 0, sys.exc_info()[1]
        while True:
            try:
                return func(*args, **kwargs)
            except Exception as exc:
                if not (self.always_retry and self.exception_safe_to_retry(exc)):
                    raise
                if retries >= limit:
                    if fallback_exc:
                        raise_with_context(fallback_exc(fallback_msg))
                    raise
                retries += 1
                warn_of_retry(func, limit - retries, exc, handled)
                self._pause(exc, retries)

    def _pause(self, exc: BaseException, retries: int) -> None:
        try:
            self.on_backend_retryable_error(exc)
        except Exception:
            logger.exception("on_backend_retryable_error hook failed; continuing retry loop")
        pause = get_exponential_backoff_interval(
            self.base_sleep_between_retries_ms, retries, self.max_sleep_between_retries_ms, True
        )
        self._sleep(pause / 1000)

    def store_result(
        self,
        task_id: Any,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Store a task's state. Blocks. Returns the value as it is stored."""
        result = self.encode_result(result, state)
        self._ensure_retryable(
            self._store_result,
            # by position: others name them in other ways
            task_id, result, state, traceback,
            fallback_exc=partial(BackendStoreError, task_id=task_id, state=state),
            fallback_msg="failed to store result on the backend",
            request=request,
            **kwargs,
        )  # fmt: skip
        return result

    def is_cached(self, task_id: Any) -> bool:
        """Say whether a result is in this process."""
        return task_id in self._cache

    def forget(self, task_id: Any) -> None:
        """Delete what is stored about a task."""
        self._cache.pop(task_id, None)
        self._ensure_retryable(self._forget, task_id)

    def _forget(self, task_id: Any) -> None:
        raise NotImplementedError("backend does not implement forget.")

    def get_state(self, task_id: Any) -> Any:
        """Return a task's state."""
        return self.get_task_meta(task_id)["status"]

    get_status = get_state

    def get_traceback(self, task_id: Any) -> Any:
        """Return the traceback of a task that failed."""
        return self.get_task_meta(task_id).get("traceback")

    def get_result(self, task_id: Any) -> Any:
        """Return a task's value."""
        return self.get_task_meta(task_id).get("result")

    def get_children(self, task_id: Any) -> Any:
        """Return the results of what a task has called."""
        return self.get_task_meta(task_id).get("children")

    def _ensure_not_eager(self) -> None:
        conf = self.app.conf
        if conf.task_always_eager and not conf.task_store_eager_result:
            warnings.warn(
                "Results are not stored in backend and should not be retrieved when"
                " task_always_eager is enabled, unless task_store_eager_result is enabled.",
                RuntimeWarning,
                stacklevel=2,
            )

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Say whether what asked the store may be repeated after this; a backend's own."""
        return False

    def on_backend_retryable_error(self, exc: BaseException) -> None:
        """Called before that is repeated; a backend's own."""

    def get_task_meta(self, task_id: Any, cache: bool = True) -> Any:
        """Return all that is stored about a task. Blocks."""
        self._ensure_not_eager()
        if cache:
            try:
                return self._cache[task_id]
            except KeyError:
                pass
        meta = self._ensure_retryable(
            self._get_task_meta_for,
            task_id,
            fallback_exc=partial(BackendGetMetaError, task_id=task_id),
            fallback_msg="failed to get meta",
        )
        if cache and meta.get("status") == states.SUCCESS:
            self._cache[task_id] = meta
        return meta

    def reload_task_result(self, task_id: Any) -> None:
        """Read a task's result anew."""
        self._cache[task_id] = self.get_task_meta(task_id, cache=False)

    def task_result_exists(self, task_id: Any) -> bool:
        """Say whether anything is stored about a task."""
        return self._get_task_meta_for(task_id)["status"] != states.PENDING

    # ---------------------------------------------------------------- groups

    def reload_group_result(self, group_id: Any) -> None:
        """Read a saved group anew."""
        self._cache[group_id] = self.get_group_meta(group_id, cache=False)

    def get_group_meta(self, group_id: Any, cache: bool = True) -> Any:
        """Return what is stored about a saved group."""
        self._ensure_not_eager()
        if cache:
            try:
                return self._cache[group_id]
            except KeyError:
                pass
        meta = self._ensure_retryable(self._restore_group, group_id)
        if cache and meta is not None:
            self._cache[group_id] = meta
        return meta

    def restore_group(self, group_id: Any, cache: bool = True) -> Any:
        """Return a saved `GroupResult`, or None."""
        meta = self.get_group_meta(group_id, cache=cache)
        return meta["result"] if meta else None

    def save_group(self, group_id: Any, result: Any) -> Any:
        """Save a `GroupResult`."""
        return self._ensure_retryable(self._save_group, group_id, result)

    def delete_group(self, group_id: Any) -> Any:
        """Delete a saved group."""
        self._cache.pop(group_id, None)
        return self._ensure_retryable(self._delete_group, group_id)

    def cleanup(self) -> None:
        """Delete what has outlived its life, where that does not end by itself."""

    def process_cleanup(self) -> None:
        """Called after each run."""

    def on_task_call(self, producer: Any, task_id: Any) -> dict:
        """Called before a message is published; returns options for it."""
        return {}

    # ---------------------------------------------------------------- chords

    def add_to_chord(self, chord_id: Any, result: Any) -> None:
        """Let a chord have one more task."""
        raise NotImplementedError("Backend does not support add_to_chord")

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> Any:
        """Called when a task of a chord's header has ended."""

    def set_chord_size(self, group_id: Any, chord_size: int) -> None:
        """Tell how many tasks a chord's header has."""

    def ensure_chords_allowed(self) -> None:
        """Raise NotImplementedError where there can be no chords."""

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Prepare for the body of a chord whose header is about to be sent."""
        self.ensure_chords_allowed()
        header = self.app.GroupResult(*header_result_args)
        self.fallback_chord_unlock(header, body, **kwargs)

    def fallback_chord_unlock(
        self, header_result: Any, body: Any, countdown: float = 1, **kwargs: Any
    ) -> None:
        """Send the task that looks, again and again, whether the header has ended."""
        send_unlock(self, header_result, body, countdown, **kwargs)

    def current_task_children(self, request: Any = None) -> Any:
        """Return the results of what a task has called so far."""
        request = request or getattr(get_current_task(), "request", None)
        if not request:
            return None
        return [r.as_tuple() for r in getattr(request, "children", [])]

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        return unpickle_backend, (self.__class__, args, kwargs or {})
