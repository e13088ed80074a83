"""Runs of `async def` tasks: on the loop that is there, or on one of their own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextvars import copy_context
from threading import Thread
from typing import Any

from fsdf_engine import run_coroutine

__all__ = ["complete", "drive"]


async def drive(steps: Generator[Any, Any, None]) -> None:
    """Go through a run, and await what it yields."""
    resume: Callable[[Any], Any] = steps.send
    value: Any = None
    while True:
        try:
            step = resume(value)
        except StopIteration:
            return
        resume = steps.send
        try:
            value = await step if inspect.isawaitable(step) else step
        except BaseException as error:
            resume, value = steps.throw, error


def complete(run: Coroutine[Any, Any, Any]) -> Any:
    """Await a coroutine from code that cannot. Blocks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run_coroutine(run)
    context, answer = copy_context(), Future[Any]()

    def work() -> None:
        try:
            answer.set_result(context.run(asyncio.run, run))
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=work, name="celery-eager", daemon=True).start()
    return answer.result()
