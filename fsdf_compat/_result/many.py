"""`ResultSet` and `GroupResult`: several results as one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from weakref import proxy

from vine import Thenable, barrier, promise

from .. import states
from .._state import current_app
from .._upward import LateModule
from ..exceptions import ImproperlyConfigured
from .tuples import ResultBase

__all__ = ["GroupResult", "ResultSet"]
_public = LateModule("result")


@Thenable.register
class ResultSet(ResultBase):
    """Several results."""

    _app: Any = None
    results: Any = None

    def __init__(
        self, results: Any, app: Any = None, ready_barrier: Any = None, **kwargs: Any
    ) -> None:
        self._app = app
        self.results = results
        self._set_ready_barrier(ready_barrier or barrier(results))

    def _set_ready_barrier(self, ready_barrier: Any) -> None:
        self.on_ready = promise(args=(proxy(self),))
        self._on_full = ready_barrier
        if self._on_full:
            self._on_full.then(promise(self._on_ready, weak=True))

    def _on_ready(self) -> None:
        if self.backend.is_async:
            self.on_ready()

    # ---------------------------------------------------------------- as a set

    def add(self, result: Any) -> None:
        """Add one, unless it is there."""
        if result in self.results:
            return
        self.results.append(result)
        if not self._on_full:
            return
        if not self._on_full.p.ready:
            self._on_full.add(result)
            return
        # all others have ended: whoever asks from now on waits for this one
        self._set_ready_barrier(barrier())
        self._on_full.add(result)
        self._on_full.finalize()

    def remove(self, result: Any) -> None:
        """Remove one, or that of an id.

        Raises:
            KeyError: it is not there.
        """
        if isinstance(result, str):
            result = self.app.AsyncResult(result)
        try:
            self.results.remove(result)
        except ValueError:
            raise KeyError(result) from None

    def discard(self, result: Any) -> None:
        """Remove one if it is there."""
        try:
            self.remove(result)
        except KeyError:
            pass

    def update(self, results: Any) -> None:
        """Add those that are not there."""
        self.results.extend(r for r in results if r not in self.results)

    def clear(self) -> None:
        """Remove all; the list stays the same object."""
        self.results[:] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __eq__(self, other: object) -> Any:
        return other.results == self.results if isinstance(other, ResultSet) else NotImplemented

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(r.id for r in self.results)}]>"

    # ---------------------------------------------------------------- states

    def successful(self) -> bool:
        """Say whether all have returned."""
        return all(result.successful() for result in self.results)

    def failed(self) -> bool:
        """Say whether one has failed."""
        return any(result.failed() for result in self.results)

    def maybe_throw(self, callback: Any = None, propagate: bool = True) -> None:
        """Raise the exception of the first one that has failed by now."""
        for result in self.results:
            result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    def waiting(self) -> bool:
        """Say whether one has not ended."""
        return any(not result.ready() for result in self.results)

    def ready(self) -> bool:
        """Say whether all have ended."""
        return all(result.ready() for result in self.results)

    def completed_count(self) -> int:
        """Count those that have returned."""
        return sum(int(result.successful()) for result in self.results)

    def forget(self) -> None:
        """Delete what is stored about all."""
        for result in self.results:
            result.forget()

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: Any = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Have all not run, or with `terminate` end them."""
        self.app.control.revoke(
            [r.id for r in self.results], connection=connection, timeout=timeout,
            terminate=terminate, signal=signal, reply=wait,
        )  # fmt: skip

    # ---------------------------------------------------------------- waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Any = None,
        no_ack: bool = True,
        on_message: Any = None,
        disable_sync_subtasks: bool = True,
        on_interval: Any = None,
    ) -> Any:
        """As `join`, in the way that the backend does best."""
        join = self.join_native if self.supports_native_join else self.join
        return join(
            timeout=timeout, propagate=propagate, interval=interval, callback=callback,
            no_ack=no_ack, on_message=on_message, disable_sync_subtasks=disable_sync_subtasks,
            on_interval=on_interval,
        )  # fmt: skip

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Any = None,
        no_ack: bool = True,
        on_message: Any = None,
        disable_sync_subtasks: bool = True,
        on_interval: Any = None,
    ) -> list[Any]:
        """Wait for one after the other; return their values in order.

        With `callback(id, value)` they are handed to that, and the list is empty. Blocks; raises as
        `AsyncResult.get`.
        """
        if disable_sync_subtasks:
            _public.assert_will_not_block()
        if on_message is not None:
            raise ImproperlyConfigured("Backend does not support on_message callback")
        started, values = time.monotonic(), []
        for result in self.results:
            left = None
            if timeout is not None:
                left = max(timeout - (time.monotonic() - started), 0.0)
            value = result.get(
                timeout=left, propagate=propagate, interval=interval, no_ack=no_ack,
                on_interval=on_interval, disable_sync_subtasks=disable_sync_subtasks,
            )  # fmt: skip
            if callback:
                callback(result.id, value)
            else:
                values.append(value)
        return values

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Any = None,
    ) -> Iterator[tuple[Any, Any]]:
        """Yield (id, meta) of each as it ends; of a set in this set its results."""
        self._on_full.finalize()
        return self.backend.iter_native(
            self, timeout=timeout, interval=interval, no_ack=no_ack, on_message=on_message,
            on_interval=on_interval,
        )  # fmt: skip

    def join_native(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Any = None,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Any = None,
        disable_sync_subtasks: bool = True,
    ) -> list[Any] | None:
        """As `join`, waiting for all at once; None where there is a callback."""
        if disable_sync_subtasks:
            _public.assert_will_not_block()
        places = {} if callback else {r.id: n for n, r in enumerate(self.results)}
        values = None if callback else [None] * len(self)
        for id, meta in self.iter_native(timeout, interval, no_ack, on_message, on_interval):
            if isinstance(meta, list):
                value: Any = [
                    child.get(propagate=propagate, disable_sync_subtasks=disable_sync_subtasks)
                    for child in meta
                ]
            else:
                value = meta["result"]
                if propagate and meta["status"] in states.PROPAGATE_STATES:
                    raise value
            if values is None:
                callback(id, value)
            else:
                values[places[id]] = value
        return values

    def _iter_meta(self, **kwargs: Any) -> Iterator[Any]:
        ids = {r.id for r in self.results}
        return (meta for _, meta in self.backend.get_many(ids, max_iterations=1, **kwargs))

    def _failed_join_report(self) -> Iterator[Any]:
        return (
            r for r in self.results
            if r.backend.is_cached(r.id) and r.state in states.PROPAGATE_STATES
        )  # fmt: skip

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Have a function called when this process learns that all have ended."""
        return self.on_ready.then(callback, on_error)

    @property
    def supports_native_join(self) -> Any:
        """Whether the backend waits for many at once; None of an empty set."""
        return self.results[0].supports_native_join if len(self.results) else None

    @property
    def app(self) -> Any:
        """The app of the set, or of its first result."""
        if self._app is None:
            first = self.results[0].app if self.results else None
            self._app = first if self.results else current_app._get_current_object()
        return self._app

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    @property
    def backend(self) -> Any:
        """The backend of its app."""
        return self.app.backend if self.app else self.results[0].backend


@Thenable.register
class GroupResult(ResultSet):
    """The results of a group, which has an id and can be saved."""

    id: Any = None
    results: Any = None

    def __init__(
        self, id: Any = None, results: Any = None, parent: Any = None, **kwargs: Any
    ) -> None:
        self.id = id
        self.parent = parent
        super().__init__(results, **kwargs)

    def _on_ready(self) -> None:
        self.backend.remove_pending_result(self)
        super()._on_ready()

    def save(self, backend: Any = None) -> Any:
        """Keep it in the backend, for `restore`."""
        return (backend or self.app.backend).save_group(self.id, self)

    def delete(self, backend: Any = None) -> None:
        """Delete what `save` has kept."""
        (backend or self.app.backend).delete_group(self.id)

    @classmethod
    def restore(cls, id: Any, backend: Any = None, app: Any = None) -> Any:
        """Return what was saved under an id, or None."""
        own: Any = cls.app  # a property, unless the class is that of an app
        own = current_app if isinstance(own, property) else own
        return (backend or (app or own or current_app).backend).restore_group(id)

    def as_tuple(self) -> Any:
        """Return ((id, its parent so), [its results so]), which `result_from_tuple` reads."""
        own = self.id, self.parent and self.parent.as_tuple()
        return own, [r.as_tuple() for r in self.results]

    @property
    def children(self) -> Any:
        """Its results."""
        return self.results

    def __reduce__(self) -> Any:
        return self.__class__, self.__reduce_args__()

    def __reduce_args__(self) -> Any:
        return self.id, self.results

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> Any:
        if isinstance(other, GroupResult):
            return (other.id, other.results, other.parent) == (self.id, self.results, self.parent)
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} [{', '.join(r.id for r in self.results)}]>"
