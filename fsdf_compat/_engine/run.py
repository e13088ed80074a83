"""What one run of a message is to store, and when.

The tracer appends what ends its run to `effects`, for the engine to store with the ends of other
runs. Only where user code could see that it is not there yet, it is stored in the middle.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from fsdf_engine.contracts import Effect, Job, Record

from .._backends.native import collected, fence

__all__ = ["Run", "current_run"]


class Run:
    """One run by a worker; `current_run` has it where its code is."""

    __slots__ = ("again", "began", "effects", "has_ended", "job", "on_loop", "told")

    def __init__(self, job: Job, on_loop: bool = False) -> None:
        self.job, self.on_loop, self.has_ended = job, on_loop, False
        self.began = 0.0  # the instant (`time.monotonic`) at which its tracer did
        self.told = b""  # the JSON of a value of which no more is to be told
        self.effects: list[Effect] = []
        self.again: tuple[Any, ...] = ()  # what `retry` has raised, with the messages of it

    def record(self, record: Record) -> None:
        """Have a result stored when the run ends."""
        self.effects.append(fence(record, self.job))

    @contextmanager
    def collecting(self, app: Any) -> Iterator[None]:
        """Have what is published and stored meanwhile leave when the run ends."""
        kept: list[Any] = []
        with collected(kept), app.amqp.collecting() as outgoings:
            yield
        for effect in kept:
            if type(effect) is Record:
                fence(effect, self.job)
        self.effects += outgoings
        self.effects += kept

    def commit(self) -> Coroutine[Any, Any, None] | None:
        """Store now what there is: blocks, or on a loop returns what is to be awaited."""
        effects, self.effects = self.effects, []
        if not effects:
            return None
        if self.on_loop:
            return self.job.owner.acommit(self.job, effects)
        self.job.owner.commit(self.job, effects)
        return None


# Of the code of a run; what it calls eagerly, and other processes' code, have none.
current_run: ContextVar[Run | None] = ContextVar("celery_run", default=None)
