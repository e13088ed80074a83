"""A running consumer as its user sees it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ..contracts import Job, Pool
from ..errors import patience_of
from ..listeners import Listeners
from ..outcomes import Interrupted
from .consumer import Consumer
from .context import current_job
from .due import Deadlines
from .exit import hold_exit

__all__ = ["ConsumerHandle"]
log = logging.getLogger("fsdf.worker")
GRACE = 30.0  # seconds that runs have to end when a worker stops
UNWIND = 0.5  # seconds that interrupted runs have
FLUSH = 5.0  # seconds to store what has ended


class ConsumerHandle:
    """One consumer that runs in the background. All methods may be called by any thread."""

    def __init__(
        self,
        consumer: Consumer,
        *,
        own_pool: bool,
        deadlines: Deadlines,
        listeners: Listeners,
        forget: Callable[[], object],
    ) -> None:
        self.consumer, self.queue = consumer, consumer.queue
        self._own_pool, self.deadlines = own_pool, deadlines
        self.found: list[tuple[Any, str]] = []  # tasks that a resolver gave, and who it is
        self._listeners, self._forget = listeners, forget
        self.serve: Callable[[], None] | None = None  # runs jobs in the thread that was lent
        self._stopped, self._one_stop = threading.Event(), threading.Lock()
        self._release_exit: Callable[[], None] = lambda: None

    def __repr__(self) -> str:
        state = "stopped" if self._stopped.is_set() else f"holds {self.consumer.held()} messages"
        return f"<consumer of queue {self.queue!r}, {state}>"

    @property
    def pool(self) -> Pool:
        """Where the runs are."""
        return self.consumer.pool

    def jobs(self) -> tuple[list[Job], list[Job]]:
        """Return the messages that run here, and those that wait here for a slot. Any thread."""
        consumer, own = self.consumer, self.consumer.outbox
        running = [job for job in consumer.pool.running() if job.owner is own]
        held = consumer.keeper.held.copy() | consumer.keeper.acked.copy()
        waiting = held.difference(running)
        return running, [job for job in waiting if not hasattr(job, "outcome")]

    def start(self) -> None:
        """Begin; the interpreter stays until the consumer is stopped. Does not block."""
        self._release_exit = hold_exit()
        self.consumer.start()
        self._listeners.emit("consumer_started", queue=self.queue)

    def stop(self, drain: bool = True, timeout: float = GRACE) -> None:
        """Stop fetching, give back what has not started, and let runs end for `timeout` seconds.

        What still runs then is interrupted and its message given back; without `drain` at once.
        Blocks; inside a run of its own it returns at once and stops in the background.
        """
        if not drain:
            self.consumer.hurry()  # a stop that drains already goes on as this one
        arguments = (timeout if drain else 0.0,)
        if current_job.get(None) is not None:
            threading.Thread(target=self._stop, args=arguments, name="fsdf-stop").start()
        else:
            self._stop(*arguments)

    def pause(self) -> None:
        """Start no more runs until `resume`; what waits in this process goes back."""
        self.consumer.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self.consumer.resume()

    def join(self, timeout: float | timedelta | None = None) -> bool:
        """Block until the consumer has stopped; False when `timeout` seconds passed before."""
        return self._stopped.wait(patience_of(timeout))

    def _stop(self, grace: float) -> None:
        with self._one_stop:
            if not self._stopped.is_set():
                try:
                    self._stop_in_order(grace)
                finally:
                    self._forget()
                    self._release_exit()
                    self._stopped.set()
                    self._listeners.emit("consumer_stopped", queue=self.queue)

    def _stop_in_order(self, grace: float) -> None:
        """Invariant 8 of the design."""
        consumer, pool = self.consumer, self.consumer.pool
        consumer.quit()
        if not consumer.drained(grace):
            consumer.withdraw(acked=True)
            for job in pool.running():
                if job.owner is consumer.outbox:
                    pool.interrupt(job, Interrupted(), kill=True)
            if not consumer.drained(UNWIND, patient=False):
                consumer.withdraw(acked=True)  # what children had been handed that are dead now
                log.error(
                    "queue %s: some runs do not end; other workers get their messages when their"
                    " leases have ended", self.queue,
                )  # fmt: skip
        if self._own_pool:
            pool.close(0.0)
        self.deadlines.close()
        if left := consumer.outbox.close(FLUSH):
            log.error(
                "queue %s: %d effects are not stored; their messages return", self.queue, left
            )
        consumer.keeper.close()
        consumer.marking.close()
        consumer.keeper.tell_lost(consumer.keeper.acked.copy())
        consumer.subscription.close()
        if consumer.report:
            consumer.report.close()
