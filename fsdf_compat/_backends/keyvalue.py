"""Backends that keep bytes under keys: what they have in common. Celery's keys and forms."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from kombu.utils.encoding import bytes_to_str, ensure_bytes

from .. import states
from .._upward import LateModule
from ..exceptions import BackendStoreError, ChordError
from .core import Backend
from .failing import chord_error
from .waiting import looks

__all__ = ["BaseKeyValueStoreBackend"]
logger = logging.getLogger("celery.backends.base")
_public = LateModule("backends.base")


class BaseKeyValueStoreBackend(Backend):
    """Keeps results under keys. Who makes one implements get, mget, set, delete, incr, expire."""

    key_t: Callable[[Any], Any] = ensure_bytes
    task_keyprefix: Any = "celery-task-meta-"
    group_keyprefix: Any = "celery-taskset-meta-"
    chord_keyprefix: Any = "chord-unlock-"
    implements_incr = False  # `incr` is there: the tasks of a header count themselves

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if hasattr(self.key_t, "__func__"):  # a plain function, no method
            self.key_t = self.key_t.__func__
        super().__init__(*args, **kwargs)
        self._chord_expires = self.app.conf.get("result_chord_expires")
        self._add_global_keyprefix()
        self._encode_prefixes()

    @property
    def chord_expires(self) -> Any:
        """How many seconds what belongs to a chord lasts."""
        if self._chord_expires is None:
            return self.expires
        return self.prepare_expires(self._chord_expires, type=int)

    @property
    def _chord_result_expires(self) -> Any:
        """As `chord_expires`, for what others read, too: never shorter than results last."""
        lasts = self.chord_expires
        return max(lasts, self.expires) if lasts and self.expires else 0

    def _add_global_keyprefix(self) -> None:
        options = self.app.conf.get("result_backend_transport_options", {})
        if prefix := options.get("global_keyprefix"):
            if prefix[-1] not in ":_-.":
                prefix += "_"
            for name in ("task_keyprefix", "group_keyprefix", "chord_keyprefix"):
                setattr(self, name, f"{prefix}{getattr(self, name)}")

    def _encode_prefixes(self) -> None:
        for name in ("task_keyprefix", "group_keyprefix", "chord_keyprefix"):
            setattr(self, name, self.key_t(getattr(self, name)))

    # ---------------------------------------------------------------- a backend's own

    def get(self, key: Any) -> Any:
        """Return what lies under a key, or None."""
        raise NotImplementedError("Must implement the get method.")

    def mget(self, keys: Any) -> Any:
        """Return what lies under keys, as a list or a dict."""
        raise NotImplementedError("Does not support get_many")

    def _set_with_state(self, key: Any, value: Any, state: str) -> Any:
        return self.set(key, value)

    def set(self, key: Any, value: Any) -> Any:
        """Let a value lie under a key."""
        raise NotImplementedError("Must implement the set method.")

    def delete(self, key: Any) -> Any:
        """Delete what lies under a key."""
        raise NotImplementedError("Must implement the delete method")

    def incr(self, key: Any) -> Any:
        """Count under a key; return how far."""
        raise NotImplementedError("Does not implement incr")

    def expire(self, key: Any, value: Any) -> Any:
        """Let what lies under a key last so many seconds."""

    # ---------------------------------------------------------------- keys

    def get_key_for_task(self, task_id: Any, key: Any = "") -> Any:
        """Return the key of a task's result."""
        return self._get_key_for(self.task_keyprefix, _there("task_id", task_id), key)

    def get_key_for_group(self, group_id: Any, key: Any = "") -> Any:
        """Return the key of a saved group."""
        return self._get_key_for(self.group_keyprefix, _there("group_id", group_id), key)

    def get_key_for_chord(self, group_id: Any, key: Any = "") -> Any:
        """Return the key where the tasks of a chord are counted."""
        return self._get_key_for(self.chord_keyprefix, _there("group_id", group_id), key)

    def _get_key_for(self, prefix: Any, id: Any, key: Any = "") -> Any:
        key_t = self.key_t
        return key_t("").join([prefix, key_t(str(id) if isinstance(id, UUID) else id), key_t(key)])

    def _strip_prefix(self, key: Any) -> str:
        key = self.key_t(key)
        for prefix in (self.task_keyprefix, self.group_keyprefix):
            if key.startswith(prefix):
                return bytes_to_str(key[len(prefix) :])
        return bytes_to_str(key)

    # ---------------------------------------------------------------- many

    def _filter_ready(self, values: Any, READY_STATES: Any = states.READY_STATES) -> Iterator[Any]:
        for key, value in values:
            if value is not None:
                meta = self.decode_result(value)
                if meta["status"] in READY_STATES:
                    yield key, meta

    def _mget_to_results(
        self, values: Any, keys: Any, READY_STATES: Any = states.READY_STATES
    ) -> dict[str, Any]:
        if hasattr(values, "items"):
            found = self._filter_ready(values.items(), READY_STATES)
            return {self._strip_prefix(key): meta for key, meta in found}
        found = self._filter_ready(enumerate(values), READY_STATES)
        return {bytes_to_str(keys[n]): meta for n, meta in found}

    def get_many(
        self,
        task_ids: Any,
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Any = None,
        max_iterations: int | None = None,
        READY_STATES: Any = states.READY_STATES,
    ) -> Iterator[tuple[str, Any]]:
        """Yield (id, meta) of each task that has ended, looking every `interval` seconds.

        Raises:
            TimeoutError: not all have ended within `timeout` seconds.
        """
        left = set(task_ids)
        for id in list(left):
            cached = self._cache.get(id)
            if cached is not None and cached["status"] in READY_STATES:
                yield bytes_to_str(id), cached
                left.discard(id)
        interval = 0.5 if interval is None else interval
        for n in looks(timeout, interval, on_interval, f"Operation timed out ({timeout})"):
            if not left or (max_iterations and n >= max_iterations):
                return
            ids = list(left)
            values = self.mget([self.get_key_for_task(id) for id in ids])
            found = self._mget_to_results(values, ids, READY_STATES)
            self._cache.update(found)
            left.difference_update(bytes_to_str(id) for id in found)
            for id, meta in found.items():
                if on_message is not None:
                    on_message(meta)
                yield bytes_to_str(id), meta
            if not left:
                return

    # ---------------------------------------------------------------- one

    def _forget(self, task_id: Any) -> None:
        self.delete(self.get_key_for_task(task_id))

    def _store_result(
        self,
        task_id: Any,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Store a state, unless the task has succeeded: who runs it again changes nothing."""
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = bytes_to_str(task_id)
        if self._get_task_meta_for(task_id)["status"] == states.SUCCESS:
            return result
        try:
            self._set_with_state(self.get_key_for_task(task_id), self.encode(meta), state)
        except BackendStoreError as error:
            raise BackendStoreError(str(error), state=state, task_id=task_id) from error
        return result

    def _get_task_meta_for(self, task_id: Any) -> Any:
        found = self.get(self.get_key_for_task(task_id))
        return self.decode_result(found) if found else {"status": states.PENDING, "result": None}

    def task_result_exists(self, task_id: Any) -> bool:
        """Say whether anything is stored about a task."""
        return bool(self.get(self.get_key_for_task(task_id)))

    def _save_group(self, group_id: Any, result: Any) -> Any:
        body = self.encode({"result": result.as_tuple()})
        self._set_with_state(self.get_key_for_group(group_id), body, states.SUCCESS)
        return result

    def _delete_group(self, group_id: Any) -> None:
        self.delete(self.get_key_for_group(group_id))

    def _restore_group(self, group_id: Any) -> Any:
        if not (found := self.get(self.get_key_for_group(group_id))):
            return None
        meta = self.decode(found)
        meta["result"] = _public.result_from_tuple(meta["result"], self.app)
        return meta

    # ---------------------------------------------------------------- chords, counted

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Prepare for the body of a chord whose header is about to be sent."""
        if self.implements_incr:
            self._apply_chord_incr(header_result_args, body, **kwargs)
        else:
            super().apply_chord(header_result_args, body, **kwargs)

    def _apply_chord_incr(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        self.ensure_chords_allowed()
        header = self.app.GroupResult(*header_result_args)
        header.save(backend=self)
        self.expire(self.get_key_for_group(header.id), self._chord_result_expires)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> Any:
        """Count a task of a header; who is the last one calls the body."""
        if not self.implements_incr or not (gid := request.group):
            return None
        callback = None
        try:
            header = _public.GroupResult.restore(gid, backend=self)
        except Exception as error:
            logger.exception("Chord %r raised: %r", gid, error)
            callback = _public.maybe_signature(request.chord, app=self.app)
            return self.chord_error_from_stack(
                callback, ChordError(f"Cannot restore group: {error!r}")
            )
        if header is None:
            callback = _public.maybe_signature(request.chord, app=self.app)
            logger.error("Chord callback %r: GroupResult %s no longer exists", callback, gid)
            return self.chord_error_from_stack(
                callback, ChordError(f"GroupResult {gid} no longer exists")
            )
        key = self.get_key_for_chord(gid)
        count, size = self.incr(key), request.chord.get("chord_size")
        size = len(header) if size is None else size
        if count > size:
            logger.warning("Chord counter incremented too many times for %r", gid)
        elif count == size:
            self._complete(gid, key, header, request)
        else:
            self.expire(key, self.chord_expires)
            self.expire(self.get_key_for_group(gid), self._chord_result_expires)
            self.expire(self.get_key_for_task(request.id), self._chord_result_expires)
        return None

    def _complete(self, gid: Any, key: Any, header: Any, request: Any) -> None:
        """Call the body of a chord with the results of its header. Blocks."""
        callback = _public.maybe_signature(request.chord, app=self.app)
        try:
            values = self._joined(header)
        except Exception as error:
            culprit = next(header._failed_join_report(), None)
            reason = repr(error) if culprit is None else f"Dependency {culprit.id} raised {error!r}"
            logger.exception("Chord %r raised: %r", gid, reason)
            self.chord_error_from_stack(callback=callback, exc=chord_error(reason, error))
        else:
            try:
                self.app.amqp._retry_publish(callback.delay, values)
            except Exception as error:
                logger.exception("Chord %r raised: %r", gid, error)
                failure = chord_error(f"Callback error: {error!r}", error)
                self.chord_error_from_stack(callback=callback, exc=failure)
        finally:
            header.delete()
            self.delete(key)
            for result in header.results:  # they last as others now
                self.expire(self.get_key_for_task(result.id), self.expires)

    def _joined(self, header: Any) -> Any:
        join = header.join_native if header.supports_native_join else header.join
        with _public.allow_join_result():
            return join(timeout=self.app.conf.result_chord_join_timeout, propagate=True)


def _there(name: str, id: Any) -> Any:
    if not id:
        raise ValueError(f"{name} must not be empty. Got {id} instead.")
    return id
