"""The option `autoretry_for`: exceptions that are retried without a word in the task."""

from __future__ import annotations

import functools
from typing import Any

from ..exceptions import Ignore, Retry
from ..utils.time import get_exponential_backoff_interval

__all__ = ["add_autoretry_behaviour"]


def add_autoretry_behaviour(task: Any, **options: Any) -> None:
    """Let `task.run` retry what `autoretry_for` names; `options` are stronger than attributes."""

    def option(name: str, default: Any) -> Any:
        return options.get(name, getattr(task, name, default))

    wanted = tuple(option("autoretry_for", ()))
    unwanted = tuple(option("dont_autoretry_for", ()))
    retry_kwargs = option("retry_kwargs", {})
    backoff = float(option("retry_backoff", False))
    most, jitter = int(option("retry_backoff_max", 600)), option("retry_jitter", True)
    if not wanted or hasattr(task, "_orig_run"):
        return

    def again(error: BaseException, control: dict[str, Any]) -> BaseException:
        """Return what a retry raises."""
        if backoff:
            control["countdown"] = get_exponential_backoff_interval(
                factor=int(max(1.0, backoff)),
                retries=task.request.retries,
                maximum=most,
                full_jitter=jitter,
            )
        return _retried(task, error, control)

    task.run = _trying(task, retry_kwargs, wanted, unwanted, again)


def _trying(task: Any, retry_kwargs: Any, wanted: Any, unwanted: Any, again: Any) -> Any:
    """Return the task's function as one that retries."""
    original = task._orig_run = task.run
    if _is_coroutine(original):

        @functools.wraps(original)
        async def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return await task._orig_run(*args, **kwargs)
            except (Ignore, Retry, *unwanted):
                raise
            except wanted as error:
                raise again(error, dict(retry_kwargs))  # noqa: B904 - the error is the one that is handled

    else:

        @functools.wraps(original)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return task._orig_run(*args, **kwargs)
            except (Ignore, Retry, *unwanted):
                raise
            except wanted as error:
                raise again(error, dict(retry_kwargs))  # noqa: B904 - as above

    return run


def _retried(task: Any, error: BaseException, control: dict[str, Any]) -> BaseException:
    """Retry; how many may follow can have been said by the retry before."""
    if hasattr(task, "override_max_retries"):
        control["max_retries"] = task.override_max_retries
    raised: BaseException = task.retry(exc=error, **control)
    if hasattr(task, "override_max_retries"):
        del task.override_max_retries
    return raised


def _is_coroutine(function: Any) -> bool:
    import inspect  # what a task without the option need not pay for

    return inspect.iscoroutinefunction(function)
