"""Publishing: concurrent publishers share a flush, and a run publishes through its own lease."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ..contracts import Broker, Capability, Outgoing
from ..errors import PublishError, Unavailable
from .context import current_job
from .pushes import answers

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from concurrent.futures import Executor

__all__ = ["Publisher", "place_of"]


def place_of(broker: Broker) -> tuple[str, str]:
    """Return what makes two broker objects, also of two processes, one place."""
    url = broker.url
    if Capability.SHARED not in broker.capabilities:  # two that are alike are two places
        url = f"{url}#{id(broker)}"
    return type(broker).__qualname__, url


class _Ticket:
    __slots__ = ("batch", "error", "sent")

    def __init__(self, batch: Sequence[Outgoing]) -> None:
        self.batch, self.sent = batch, False
        self.error: BaseException | None = None


class Publisher:
    """One per broker. Who gets the lock sends for all that wait by then: no timer, no buffer."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._place = place_of(broker)
        self._waiting: deque[_Ticket] = deque()
        self._sending, self._sender = threading.Lock(), 0  # the thread that has it; 0: none
        self._executor: Executor | None = None  # one thread of ours, for loops

    def publish(self, batch: Sequence[Outgoing]) -> None:
        """Block until the broker has stored the batch.

        Inside a run: as part of the run, so that a worker that has lost the message publishes
        nothing more.

        Raises:
            PublishError: naming those of this batch that were rejected, or are unknown.
            Unavailable: nothing was sent.
            LeaseLost: the run that publishes has lost its message.
        """
        job = current_job.get(None)
        if job is None:
            return self.send(batch)
        with answers(job, batch):
            if getattr(job.owner, "place", None) == self._place:
                return job.owner.commit(job, batch)
            return self.send(batch)

    async def apublish(self, batch: Sequence[Outgoing]) -> None:
        """As `publish`, without blocking the loop or needing one of its threads."""
        import asyncio

        job, loop = current_job.get(None), asyncio.get_running_loop()
        if job is None:
            return await self._asend(batch, loop)
        with answers(job, batch):
            if getattr(job.owner, "place", None) == self._place:
                return await job.owner.acommit(job, batch)
            return await self._asend(batch, loop)

    async def _asend(self, batch: Sequence[Outgoing], loop: AbstractEventLoop) -> None:
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor  # asyncio has imported it

            self._executor = ThreadPoolExecutor(1, "fsdf-publish")
        self._waiting.append(ticket := _Ticket(batch))
        try:
            await loop.run_in_executor(self._executor, self._flush, ticket)
        except BaseException:
            self._withdraw(ticket)
            raise

    def send(self, batch: Sequence[Outgoing]) -> None:
        """Publish whoever calls."""
        if self._sender == threading.get_ident():
            raise Unavailable(
                "this push came in the middle of another one of the same thread, from a signal"
                " handler or a finalizer; nothing was sent: push from a thread there"
            )
        self._waiting.append(ticket := _Ticket(batch))
        try:
            self._flush(ticket)
        except BaseException:
            self._withdraw(ticket)
            raise

    def _withdraw(self, ticket: _Ticket) -> None:
        """Whoever waits no longer, by a time-out or an interrupt, leaves nothing to be sent."""
        with suppress(ValueError, IndexError):  # it has been taken
            self._waiting.remove(ticket)

    def _flush(self, ticket: _Ticket) -> None:
        with self._sending:
            if not ticket.sent and self._waiting:
                self._sender = threading.get_ident()
                try:
                    self._send([self._waiting.popleft() for _ in range(len(self._waiting))])
                finally:
                    self._sender = 0
        if not ticket.sent:  # who took it was interrupted before it could tell
            raise PublishError((), ticket.batch)
        if ticket.error is not None:
            raise ticket.error

    def _send(self, tickets: Sequence[_Ticket]) -> None:
        error: BaseException | None = None
        one = len(tickets) == 1
        items = tickets[0].batch if one else [item for t in tickets for item in t.batch]
        try:
            self.broker.publish(items)
        except BaseException as caught:  # every ticket must learn of it
            error = caught
        if not one and type(error) in (TypeError, ValueError, UnicodeEncodeError):
            for ticket in tickets:  # one of them cannot be written, so nothing was sent
                self._send([ticket])
            return
        for ticket in tickets:
            ticket.sent, ticket.error = True, error
            if error is not None and not isinstance(error, Exception):  # meant for this thread only
                ticket.error = PublishError((), ticket.batch)
            if isinstance(error, PublishError) and not one:
                rejected = [item for item in ticket.batch if item in error.rejected]
                unknown = [item for item in ticket.batch if item in error.unknown]
                ticket.error = error.part(rejected, unknown) if rejected or unknown else None
        if error is not None and not isinstance(error, Exception):
            raise error
