"""How results that the engine keeps are waited for: one inbox of the process, no polling."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

from kombu.utils.encoding import bytes_to_str

from .. import states
from .._engine.errors import translating
from .._ids import text_id
from ..exceptions import TimeoutError
from .part import Part

__all__ = ["Awaiting"]
MOST = 1000  # results that one command reads


class Awaiting(Part):
    """The part of a backend that waits. Its methods are those of the backend."""

    _replies: tuple[Any, Any] | None = None
    _has_waited = False

    def replies(self) -> Any:
        """Return where this process learns of results."""
        engine = self.app.engine
        if self._replies is None or self._replies[0] is not engine.services.epoch:
            with translating():
                options = engine.remote("results", **self.app.engine_options(results=True)).options
                self._replies = engine.services.epoch, engine.replies(options, self.layout)
        return self._replies[1]

    def reply_to(self, ids: Sequence[str], published: float) -> str:
        """Return the address that messages about to be published carry as `extra.reply`.

        "" until somebody has waited here: who never waits has no inbox.
        """
        if not self._has_waited or not self.native:
            return ""
        replies = self.replies()
        replies.expect(ids, published)
        return replies.address

    def wait_for_pending(
        self,
        result: Any,
        callback: Any = None,
        propagate: bool = True,
        timeout: float | None = None,
        on_interval: Any = None,
        on_message: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Wait for a result; return its value, or raise its exception.

        Who wants to hear of states before the end, by `on_message`, is told of those, too.

        Raises:
            kombu.exceptions.OperationalError: the server of the results refuses us.
        """
        if not self.native or on_message is not None:
            return super().wait_for_pending(  # type: ignore[misc]
                result, callback=callback, propagate=propagate, timeout=timeout,
                on_interval=on_interval, on_message=on_message, **kwargs,
            )  # fmt: skip
        self._ensure_not_eager()
        self._has_waited, id = True, text_id(result.id)
        for pause in _turns(timeout, on_interval):
            with translating():
                body = self.replies().wait(id, pause, "")
            if body is not None:
                meta = self._meta_of(body, id)
                if on_interval and meta["status"] in states.PROPAGATE_STATES:
                    on_interval()  # what a parent has raised is told rather than what follows of it
                result._maybe_set_cache(meta)
                return result.maybe_throw(callback=callback, propagate=propagate)
        raise TimeoutError("The operation timed out.")

    def ended_of(self, results: Sequence[Any]) -> Sequence[Any]:
        """Leave out those of a chain that are known to have no end yet; one read for many."""
        asked = [r for r in results if getattr(r, "_cache", r) is None and r.backend is self]
        if not self.native or len(asked) < 2:
            return results
        for start in range(0, len(asked), MOST):
            ids = [result.id for result in asked[start : start + MOST]]
            values = self._ensure_retryable(self.mget, [self.get_key_for_task(id) for id in ids])
            found = self._mget_to_results(values, ids)
            for result in asked[start : start + MOST]:
                result._maybe_set_cache(found.get(bytes_to_str(result.id)))
        return [result for result in results if getattr(result, "_cache", result) is not None]

    def iter_native(self, result: Any, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        """Yield (id, meta) of the results in a set as they end; of a set in it its results.

        Raises:
            kombu.exceptions.OperationalError: the server of the results refuses us.
        """
        if not self.native or kwargs.get("on_message") is not None:
            return super().iter_native(result, **kwargs)  # type: ignore[misc]
        return self._iter_ends(result, kwargs.get("timeout"), kwargs.get("on_interval"))

    def _iter_ends(
        self, result: Any, timeout: float | None, on_interval: Any
    ) -> Iterator[tuple[Any, Any]]:
        self._ensure_not_eager()
        self._has_waited = True
        left: dict[Any, Any] = {}
        for node in result.results:
            if not hasattr(node, "_cache"):
                yield node.id, node.children
            elif node._cache:
                yield node.id, node._cache
            else:
                left[text_id(node.id)] = node
        for pause in _turns(timeout, on_interval):
            if not left:
                return
            with translating():
                for id, body in self.replies().each(list(left), pause):
                    node = left.pop(id)
                    node._maybe_set_cache(self._meta_of(body, id))
                    yield id, node._cache
        if left:
            raise TimeoutError("The operation timed out.")

    def _meta_of(self, body: bytes, id: Any) -> Any:
        if not body:
            raise RuntimeError(f"the app was closed while the result of {id} was waited for")
        return self.decode(body)

    def add_pending_result(self, result: Any, weak: bool = False, **kwargs: Any) -> Any:
        """Results of the engine are waited for when somebody does so."""
        if self.native:
            return result
        return super().add_pending_result(result, weak=weak, **kwargs)  # type: ignore[misc]

    def remove_pending_result(self, result: Any) -> Any:
        """Nobody is told any more."""
        return result if self.native else super().remove_pending_result(result)  # type: ignore[misc]


def _turns(timeout: float | None, on_interval: Any) -> Iterator[float | None]:
    """Yield for how long to wait; where somebody wants to be called, every second."""
    if not on_interval:
        yield timeout
        return
    end = math.inf if timeout is None else time.monotonic() + timeout
    while True:
        left = end - time.monotonic()
        yield max(0.0, min(1.0, left))
        if left <= 1.0:
            return
        on_interval()
