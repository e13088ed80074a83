"""Waiting for results by looking: where the place that they are kept in cannot tell of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import states
from .._upward import LateModule
from ..exceptions import ImproperlyConfigured, TimeoutError
from .part import Part

__all__ = ["SyncBackendMixin", "looks"]
_public = LateModule("backends.base")


def looks(timeout: float | None, interval: float, on_interval: Any, text: str) -> Iterator[int]:
    """Yield before each look, the first one at once; blocks in between.

    Raises:
        TimeoutError: `timeout` seconds have passed, and the last look was in vain.
    """
    passed, n = 0.0, 0
    while True:
        yield n
        if timeout is not None and passed >= timeout:
            raise TimeoutError(text)
        if on_interval:
            on_interval()
        pause = interval if timeout is None else min(interval, timeout - passed)
        _public.time.sleep(pause)  # what is looked at tells nobody
        passed, n = passed + pause, n + 1


class SyncBackendMixin(Part):
    """Waits by looking for what has been stored, every `interval` seconds."""

    def iter_native(
        self,
        result: Any,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Any = None,
    ) -> Iterator[tuple[Any, Any]]:
        """Yield (id, meta) of the results in a set as they end; of a set in it its results."""
        self._ensure_not_eager()
        ids = set()
        for each in result.results:
            if isinstance(each, _public.ResultSet):
                yield each.id, each.results
            else:
                ids.add(each.id)
        if ids:
            yield from self.get_many(
                ids, timeout=timeout, interval=interval, no_ack=no_ack, on_message=on_message,
                on_interval=on_interval,
            )  # fmt: skip

    def wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Any = None,
        callback: Any = None,
        propagate: bool = True,
    ) -> Any:
        """Wait for a result; return its value, or raise its exception."""
        self._ensure_not_eager()
        if on_message is not None:
            raise ImproperlyConfigured("Backend does not support on_message callback")
        meta = self.wait_for(
            result.id, timeout=timeout, interval=interval, on_interval=on_interval, no_ack=no_ack
        )
        if not meta:
            return None
        result._maybe_set_cache(meta)
        return result.maybe_throw(propagate=propagate, callback=callback)

    def wait_for(
        self,
        task_id: Any,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Any = None,
    ) -> Any:
        """Wait for a task's end and return what is stored.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds.
        """
        self._ensure_not_eager()
        for _ in looks(timeout, interval, on_interval, "The operation timed out."):
            meta = self.get_task_meta(task_id)
            if meta["status"] in states.READY_STATES:
                return meta
        return None

    def add_pending_result(self, result: Any, weak: bool = False) -> Any:
        """Nothing is told by itself: results are looked for."""
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Nothing is told by itself."""
        return result

    @property
    def is_async(self) -> bool:
        """Whether results arrive by themselves."""
        return False
