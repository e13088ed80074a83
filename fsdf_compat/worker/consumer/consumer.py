"""`Consumer`: what a worker consumes, and the sender of what is told of messages."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from fsdf_engine.contracts import Job, outcomes

from ... import bootsteps
from ..._engine.serving import serve
from ...bootsteps import RUN
from ...utils.log import get_logger
from ...utils.nodenames import gethostname
from ...utils.time import rate
from .. import state
from ..strategy import receiver, request_of
from .arrival import Arrival

__all__ = ("Consumer", "Evloop")
logger = get_logger("celery.worker.consumer.consumer")
COLLECT_SOCKET_TIMEOUT = 5.0
SET = 0.1  # seconds by which a clock differs that somebody has set
_STEPS = ("agent:Agent", "connection:Connection", "consumer:Evloop", "control:Control",
          "delayed_delivery:DelayedDelivery", "events:Events", "gossip:Gossip", "heart:Heart",
          "mingle:Mingle", "tasks:Tasks")  # fmt: skip


def noop(*args: Any, **kwargs: Any) -> None:
    """Do nothing."""


class Consumer:
    """The consumers of a worker's queues as one: started, stopped, and asked what they do."""

    strategies: dict[str, Any]
    init_callback: Callable[..., Any] | None = None
    timer: Any = None
    event_dispatcher: Any = None
    connection: Any = None
    heart: Any = None
    in_shutdown = False

    class Blueprint(bootsteps.Blueprint):
        """The steps of a consumer."""

        name = "Consumer"
        default_steps = [f"{__package__}.{step}" for step in _STEPS]

        def shutdown(self, parent: Any) -> None:
            """Let every step free what it has."""
            self.send_all(parent, "shutdown")

    def __init__(
        self, on_task_request: Callable[..., Any], init_callback: Callable[..., Any] = noop,
        hostname: str | None = None, pool: Any = None, app: Any = None, timer: Any = None,
        controller: Any = None, hub: Any = None, amqheartbeat: Any = None,
        worker_options: Any = None, disable_rate_limits: bool = False,
        initial_prefetch_count: int = 2, prefetch_multiplier: int = 1, **kwargs: Any,
    ) -> None:  # fmt: skip
        self.app, self.controller, self.hub, self.pool = app, controller, hub, pool
        self.on_task_request, self.init_callback = on_task_request, init_callback
        self.hostname, self.pid = hostname or gethostname(), os.getpid()
        self.timer, self.disable_rate_limits = timer, disable_rate_limits
        self.initial_prefetch_count = initial_prefetch_count
        self.prefetch_multiplier = prefetch_multiplier
        self.strategies = {}
        self.task_buckets: dict[str, Any] = defaultdict(lambda: None)
        self.on_task_message: set[Any] = set()
        self.serving = serve(app)
        self.requests = self.serving.requests
        self.steps: list[Any] = []
        self.arrival = Arrival(app)
        self._ahead = 0.0  # of `time.monotonic` the clock is; kept, for a start to be told the same
        self.blueprint = self.Blueprint(steps=app.steps["consumer"], on_close=self.on_close)
        self.blueprint.apply(self, **dict(worker_options or {}, **kwargs))

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Consume until the worker is told to end. Blocks."""
        state.lookers.append(self.look)
        self.blueprint.start(self)

    def stop(self) -> None:
        """Fetch no more, and wait for what runs. Blocks."""
        self.blueprint.stop(self)

    def terminate(self) -> None:
        """Fetch no more, and wait for nothing."""
        self.blueprint.stop(self, terminate=True)

    def close(self) -> None:
        """Called by steps that want no more."""

    def on_close(self) -> None:
        """Called when the steps are about to be stopped."""
        self.arrival.give_up()
        if self.timer is not None:
            self.timer.clear()

    def shutdown(self) -> None:
        """Free everything."""
        self.in_shutdown = True
        self.arrival.give_up()
        if self.look in state.lookers:
            state.lookers.remove(self.look)
        self.blueprint.shutdown(self)

    def on_ready(self) -> None:
        """Tell that messages are fetched, once: when the broker answers."""
        callback, self.init_callback = self.init_callback, None
        if callback is not None:
            self.arrival.then(lambda: callback(self))

    def loop_args(self) -> tuple[Any, ...]:
        """Return what `loop` is called with."""
        return ()

    def loop(self) -> None:
        """Wait for the worker's end. Blocks."""
        if self.blueprint.state == RUN:
            self.controller.wait()

    # ---------------------------------------------------------------- queues

    def consume_from(self, queue: str) -> None:
        """Start to consume a queue, with every task of the app."""
        engine = self.app.engine
        self.serving.hear(receiver(self))
        task = self.serving.declare(queue)
        sparing = self.prefetch_multiplier == 1 or self.app.conf.worker_disable_prefetch
        ceiling = 0 if sparing else None  # what is held ahead; else as much as is worth it
        engine.consume(task, pool=self.pool.engine_pool, ceiling=ceiling)

    def consuming_from(self, queue: Any) -> bool:
        """Say whether a queue is consumed."""
        name = self.serving.wire_queue(getattr(queue, "name", queue))
        return any(handle.queue == name for handle in self.app.engine.handles())

    def add_task_queue(
        self, queue: str, exchange: Any = None, exchange_type: str | None = None,
        routing_key: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        """Consume one more queue."""
        queues = self.app.amqp.queues
        if queue in queues:
            queues.select_add(queues[queue])
        else:
            kind = "direct" if exchange_type is None else exchange_type
            named = queue if exchange is None else exchange
            options.update(exchange=named, exchange_type=kind, routing_key=routing_key)
            queues.select_add(queue, **options)
        if not self.consuming_from(queue):
            self.consume_from(queue)
            logger.info("Started consuming from %s", queue)

    def cancel_task_queue(self, queue: str) -> None:
        """Consume a queue no more; blocks until what runs of it has ended."""
        logger.info("Canceling queue %s", queue)
        self.app.amqp.queues.deselect(queue)
        name = self.serving.wire_queue(queue)
        for handle in [*self.app.engine.handles()]:
            if handle.queue == name:
                handle.stop()

    def task_queues(self) -> list[Any]:
        """Return kombu's declarations of the queues that are consumed."""
        chosen = self.app.amqp.queues.consume_from
        return [queue for name, queue in chosen.items() if self.consuming_from(name)]

    def note_successes(self) -> None:
        """Have `state.successful_requests` filled, which costs a call for each message."""
        self.app.engine.listeners.add("run_ended", _note_success)

    def look(self, kind: str) -> list[Any]:
        """Return requests of the messages here that run ("active"), or wait ("reserved")."""
        found = []
        for handle in self.app.engine.handles():
            running, waiting = handle.jobs()
            for job in {"active": running, "reserved": waiting}.get(kind, ()):
                if (task := self.app._tasks.get(job.plan.name)) is not None:
                    request = request_of(job, task, self.requests, self.app)
                    request.time_start = self._start_of(job)
                    request.worker_pid = self.pool.engine_pool.process_of(job)
                    found.append(request)
        return found

    def _start_of(self, job: Job) -> float | None:
        """Return the time at which a run began; None: it has not, or that is not known here."""
        began = getattr(job.kept, "began", 0.0) or self.pool.engine_pool.began(job)
        ahead = time.time() - time.monotonic()
        if abs(ahead - self._ahead) > SET:
            self._ahead = ahead
        return began + self._ahead if began else None

    # ---------------------------------------------------------------- tasks

    def update_strategies(self) -> None:
        """Let every task say how its messages are handled."""
        for name, task in self.app.tasks.items():
            self.strategies[name] = task.start_strategy(self.app, self)
        self.reset_rate_limits()

    def bucket_for_task(self, type: Any) -> Any:
        """Return a task's starts per second, or None."""
        return rate(getattr(type, "rate_limit", None)) or None

    def reset_rate_limits(self) -> None:
        """Read the tasks' rate limits anew."""
        for name, task in self.app.tasks.items():
            self.task_buckets[name] = self.bucket_for_task(task)
        self.serving.gate.reset()

    def reset_time_limits(self) -> None:
        """Let the limits that tasks have now be those of messages that come from now on."""
        self.serving.codec.limits = {
            name: [float(task.soft_time_limit or 0), float(task.time_limit or 0)]
            for name, task in self.app.tasks.items()
            if task.soft_time_limit or task.time_limit
        }

    def call_soon(self, p: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function in the timer's thread."""
        return self.timer.call_after(0, p, args, kwargs)

    def __repr__(self) -> str:
        return f"<Consumer: {self.hostname} ({self.blueprint.human_state()})>"


def _note_success(job: Job, outcome: outcomes.Outcome) -> None:
    if type(outcome) is outcomes.Succeeded:
        state.successful_requests.add(job.id)


class Evloop(bootsteps.StartStopStep):
    """Says that the worker is ready, and waits for its end."""

    label = "event loop"
    last = True

    def start(self, c: Any) -> None:
        """Wait. Blocks."""
        c.on_ready()
        c.loop(*c.loop_args())
