"""What type checkers and editors are told of tasks; nothing of it is there when a program runs.

`@app.task` and `@shared_task` make of `def add(x: int, y: int) -> int` a task whose `delay` takes
these arguments, and whose result is an int. A task with a class of its own is Any, as that class
has more than can be said here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, overload

from .._canvas.signature import Signature
from .._result.single import AsyncResult
from ..app.task import Task

__all__ = ["Decorator", "FunctionTask", "ResultOf", "SignatureOf"]

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")
Async = Coroutine[Any, Any, V]


class ResultOf(AsyncResult, Generic[R]):
    """The result of a call of a function that returns an R."""

    id: str
    state: str
    status: str
    task_id: str

    def get(self, timeout: float | None = None, *args: Any, **options: Any) -> R:
        """Wait for it."""
        raise NotImplementedError

    wait = get


class SignatureOf(Signature, Generic[R]):
    """A call, not sent yet, of a function that returns an R."""

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        raise NotImplementedError

    def delay(self, *args: Any, **kwargs: Any) -> ResultOf[R]:
        """Send it."""
        raise NotImplementedError

    def apply_async(
        self, args: Any = None, kwargs: Any = None, route_name: Any = None, **options: Any
    ) -> ResultOf[R]:
        """Send it with options."""
        raise NotImplementedError

    def set(self, immutable: bool | None = None, **options: Any) -> SignatureOf[R]:
        """Set options; return it."""
        raise NotImplementedError


class FunctionTask(Task, Generic[P, R]):
    """A task made of a function."""

    name: str
    __wrapped__: Callable[P, R]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        raise NotImplementedError

    @overload
    def delay(
        self: FunctionTask[P, Async[V]], *args: P.args, **kwargs: P.kwargs
    ) -> ResultOf[V]: ...
    @overload
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> ResultOf[R]: ...
    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send a call."""

    @overload  # type: ignore[override]
    def apply_async(
        self: FunctionTask[P, Async[V]],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ResultOf[V]: ...
    @overload
    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ResultOf[R]: ...
    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Send a call with options."""

    def AsyncResult(self, task_id: str, **kwargs: Any) -> ResultOf[R]:
        """Return the result of a call that anybody has sent."""
        raise NotImplementedError

    def s(self, *args: Any, **kwargs: Any) -> SignatureOf[R]:
        """Return a signature with some of the arguments."""
        raise NotImplementedError

    def si(self, *args: Any, **kwargs: Any) -> SignatureOf[R]:
        """Return a signature that takes no further arguments."""
        raise NotImplementedError

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> SignatureOf[R]:
        """Return a signature with options."""
        raise NotImplementedError

    subtask = signature


class _Plain(Protocol):
    def __call__(self, fun: Callable[P, R], /) -> FunctionTask[P, R]: ...


class _Bound(Protocol):
    def __call__(self, fun: Callable[Concatenate[Any, P], R], /) -> FunctionTask[P, R]: ...


class _OfModels(Protocol):
    """What arrives as a model is sent as a dict."""

    def __call__(self, fun: Callable[..., R], /) -> FunctionTask[..., R]: ...


class _OfAClass(Protocol):
    def __call__(self, fun: Callable[..., Any], /) -> Any: ...


class Decorator(Protocol):
    """`shared_task`, or the `task` of an app."""

    @overload
    def __call__(self, fun: Callable[P, R], /) -> FunctionTask[P, R]: ...
    @overload
    def __call__(self, *, base: Any, **options: Any) -> _OfAClass: ...
    @overload
    def __call__(self, *, pydantic: Literal[True], **options: Any) -> _OfModels: ...
    @overload
    def __call__(self, *, bind: Literal[True], **options: Any) -> _Bound: ...
    @overload
    def __call__(self, *, bind: Literal[False] = ..., **options: Any) -> _Plain: ...
    @overload
    def __call__(self, *args: Any, **options: Any) -> Any: ...
