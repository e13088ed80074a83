"""What `push` returns: the id of a message, and a way to its result."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, overload

from . import codec
from .errors import ConfigurationError, ResultError, ResultTimeout, TaskFailed, patience_of
from .outcomes import rebuilt
from .replies import Replies

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from .engine import Engine
    from .options import TaskOptions

    V = TypeVar("V", default=Any)
else:
    from typing import TypeVar

    V = TypeVar("V")

__all__ = ["AsyncResult", "Results", "canceller"]


def canceller(engine: Engine, options: TaskOptions) -> Callable[[Iterable[str]], object] | None:
    """Return what cancels messages of a task; None where it is not cancellable."""
    return partial(engine.cancel, options=options) if options.cancellable else None


class AsyncResult(Generic[V]):
    """A message that was pushed. `get` and `await` need a task with results on.

    V is what the run returns. Nothing is asked of any server before `get`, `status` or `ready` is.
    """

    __slots__ = ("_cancel", "_queue", "_replies", "_returned", "_told", "task_id")

    def __init__(
        self,
        task_id: str,
        replies: Replies | None,
        queue: str = "",
        returned: Callable[[Any], Any] | None = None,
        cancel: Callable[[Iterable[str]], object] | None = None,
    ) -> None:
        """`returned` makes of a value that was JSON what the function returned."""
        self.task_id, self._replies, self._queue = task_id, replies, queue
        self._returned, self._cancel = returned, cancel
        self._told: dict[str, Any] | None = None

    def get(self, timeout: float | timedelta | None = 120.0) -> V:
        """Block until the task has ended, and return its value.

        `timeout` is a timedelta or seconds, None: for ever.

        Raises:
            ArgumentError: the timeout is no duration.
            TaskFailed: it did not succeed; `status`, `kind` and `traceback` tell how. Its
                `__cause__` is the task's exception, where its class is imported here.
            ResultTimeout: it has not ended in time.
            ResultDeadlock: called inside a run whose pool has no slot left to produce it.
            ResultError: results are off for this task, or the engine is closed meanwhile.
        """
        patience = patience_of(timeout)
        if self._told is None:
            self._took(self._source().wait(self.task_id, patience, self._queue), patience)
        return self._value()

    @property
    def result(self) -> V:
        """As `get()`, with its default timeout."""
        return self.get()

    def __await__(self) -> Generator[Any, None, V]:
        return self.aget().__await__()

    async def aget(self, timeout: float | timedelta | None = None) -> V:
        """As `get`, without blocking the loop."""
        patience = patience_of(timeout)
        if self._told is None:
            self._took(await self._source().await_(self.task_id, patience, self._queue), patience)
        return self._value()

    def ready(self) -> bool:
        """Say whether the task has ended, in any way."""
        return self.status not in ("pending", "retry")

    @property
    def status(self) -> str:
        """How far it is: pending, retry, succeeded, failed, timedout, rejected, expired, ..."""
        if (told := self._told) is None:
            found = self._source().store.read([self.task_id])
            if self.task_id not in found:
                return "pending"
            told = codec.loads(found[self.task_id])
            if told["status"] != "retry":
                self._told = told
        return str(told["status"])

    @property
    def info(self) -> dict[str, Any]:
        """All that is stored about it, as of the last look; empty if nothing is known."""
        return dict(self._told) if self.ready() and self._told else {}

    def forget(self) -> None:
        """Delete what is stored about it."""
        self._source().store.forget([self.task_id])

    def cancel(self) -> None:
        """Have it not run, if it has not started: it ends as revoked. Blocks for a round trip.

        Raises:
            ConfigurationError: its task has not `cancellable=True`.
        """
        if self._cancel is None:
            raise ConfigurationError(
                f"message {self.task_id} cannot be cancelled: nobody would look; declare its task"
                " with cancellable=True"
            )
        self._cancel([self.task_id])

    def _source(self) -> Replies:
        if self._replies is None:
            raise ResultError(
                f"nothing is stored about message {self.task_id}: results are off for its task;"
                " declare it with is_using_rpc_mode=True"
            )
        return self._replies

    def _took(self, body: bytes | None, timeout: float | None) -> None:
        if body is None:
            raise ResultTimeout(f"message {self.task_id} has not ended within {timeout:g} s")
        if not body:
            raise ResultError(f"the engine was closed while message {self.task_id} was waited for")
        self._told = codec.loads(body)

    def _value(self) -> V:
        told = self._told or {}
        if told.get("status") == "succeeded":
            value = told.get("result")
            return self._returned(value) if self._returned else value  # type: ignore[return-value]
        error = told.get("error") or {}
        kind = f"{error.get('module', '')}.{error.get('type', '')}".strip(".")
        status = str(told.get("status"))
        reason = told.get("reason", "no reason is known")
        raise TaskFailed(
            f"task {self.task_id} {status}: {reason}",
            status=status,
            kind=kind,
            traceback=told.get("traceback", ""),
        ) from rebuilt(error.get("module", ""), error.get("type", ""), error.get("args", ()))

    if not TYPE_CHECKING:  # what is misspelt is an error there

        def __getattr__(self, name: str) -> Any:
            """Nothing more; what results had in the old framework is told by today's word."""
            from .historic.attributes import result_hint

            text = f"{type(self).__name__!r} object has no attribute {name!r}{result_hint(name)}"
            raise AttributeError(text, name=name, obj=self)

    def __str__(self) -> str:
        return self.task_id

    def __repr__(self) -> str:
        return f"<AsyncResult {self.task_id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncResult) and other.task_id == self.task_id

    def __hash__(self) -> int:
        return hash(self.task_id)


class Results(Sequence[AsyncResult[V]]):
    """The results of many messages, in order; each is made when it is asked for."""

    __slots__ = ("_found", "_rest")

    def __init__(self, ids: Iterable[str], *rest: Any) -> None:
        """`rest` is what each result is made with."""
        self._found: list[str | AsyncResult[V]] = list(ids)
        self._rest = rest

    def __len__(self) -> int:
        return len(self._found)

    @overload
    def __getitem__(self, place: int) -> AsyncResult[V]: ...
    @overload
    def __getitem__(self, place: slice) -> list[AsyncResult[V]]: ...
    def __getitem__(self, place: int | slice) -> AsyncResult[V] | list[AsyncResult[V]]:
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(len(self)))]
        found = self._found[place]
        if isinstance(found, str):
            self._found[place] = found = AsyncResult(found, *self._rest)
        return found

    def __add__(self, other: Iterable[AsyncResult[V]]) -> list[AsyncResult[V]]:
        return [*self, *other]

    def __radd__(self, other: Iterable[AsyncResult[V]]) -> list[AsyncResult[V]]:
        return [*other, *self]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (list, Results)) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))
