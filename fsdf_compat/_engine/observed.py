"""Runs of tasks whose class of requests has hooks of the user's."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from importlib import import_module
from types import CoroutineType
from typing import Any

from fsdf_engine.contracts import Job

from .requests import Requests
from .run import current_run

__all__ = ["observed", "overrides"]
logger = logging.getLogger("celery.worker.request")
_USUAL = "celery.worker.request:Request"
Tracer = Callable[..., Any]


def observed(trace: Tracer, app: Any, task: Any, requests: Requests) -> Tracer:
    """Return a task's tracer with the hooks of its requests called; if it has none, as it is."""
    return _Observer(trace, app, task, requests).trace if overrides(task) else trace


def overrides(task: Any) -> bool:
    """Say whether the class of a task's requests has hooks of its own."""
    if task.Request == _USUAL:
        return False
    request = import_module("..worker.request", __package__)
    kind = import_module("..utils.imports", __package__).symbol_by_name(task.Request)
    return any(getattr(kind, name) is not getattr(request.Request, name) for name in request.HOOKS)


class _Observer:
    """Calls the hooks around one task's runs, where its code runs. What they raise is logged."""

    def __init__(self, trace: Tracer, app: Any, task: Any, requests: Requests) -> None:
        self._trace, self._app, self._task, self._requests = trace, app, task, requests

    def trace(self, uuid: str, args: Any, kwargs: Any, headers: Any = None) -> Any:
        """Trace a run; of an `async def` task that is to be awaited."""
        run: Any = current_run.get()
        request = self._begin(run.job)
        told = self._trace(uuid, args, kwargs, headers)
        if type(told) is CoroutineType:
            return self._awaited(run, request, told)
        run.commit()
        self._end(request, told)
        return told

    async def _awaited(self, run: Any, request: Any, tracing: Any) -> Any:
        told = await tracing
        if (storing := run.commit()) is not None:
            await storing
        self._end(request, told)
        return told

    def _begin(self, job: Job) -> Any:
        """Return the request of a run that starts, and tell it so."""
        strategy = import_module("..worker.strategy", __package__)
        request = strategy.request_of(job, self._task, self._requests, self._app)
        request.acknowledged = False
        self._call(request.on_accepted, os.getpid(), time.time())
        return request

    def _end(self, request: Any, told: Any) -> None:
        """Tell a request what its tracer has said, which is stored by now."""
        value, info, runtime, text = told
        if info is None and text is None:
            shown = import_module("..utils.saferepr", __package__).saferepr
            text = shown(value, self._task.resultrepr_maxsize)
        self._call(request.on_success, (0, text, runtime) if info is None else (1, value, runtime))

    def _call(self, hook: Any, *told: Any) -> None:
        try:
            hook(*told)
        except Exception:
            name = getattr(hook, "__qualname__", hook)
            logger.exception("%s of %s failed", name, self._task.name)
