"""The worker: consumers for its queues on one pool, until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fsdf_engine import ConsumerHandle, Pool, StopSignals, end_fast, masked, start_zygote, tune
from fsdf_engine.contracts import Job, Plan, outcomes

from ..app.base import Celery
from ..app.finding import find_app
from ..exceptions import ImproperlyConfigured
from ..states import OF_OUTCOME

__all__ = ["MODES", "Worker", "resolve_plan"]
log = logging.getLogger("fsdf.celery")
MODES = {
    "prefork": "processes",
    "processes": "processes",
    "threads": "threads",
    "gevent": "gevent",
    "eventlet": "eventlet",
    "solo": "inline",
}
APP = "FSDF_CELERY_APP"  # tells child processes which app it is
INCLUDE = "FSDF_CELERY_INCLUDE"  # modules named by -I
RESOLVE = f"{__name__}:resolve_plan"
FOREVER = 365 * 86_400.0  # a warm shutdown waits for every run


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker is told; `run` does the rest."""

    app: Celery
    place: str  # as `-A` names the app; "" if it was not needed
    hostname: str
    pool: str = ""
    concurrency: int = 0
    queues: Sequence[str] = ()
    max_tasks_per_child: int = 0
    max_memory_per_child: int = 0  # KiB, as Celery has it

    def run(self) -> int:
        """Consume until a signal ends it; return the exit code. Blocks."""
        signals = StopSignals("SIGQUIT")
        _import_tasks(self.app)
        if not self.app.tasks:
            raise ImproperlyConfigured(f"{self.app!r} has no tasks; set include=[...]")
        mode = self.pool or str(self.app.conf.worker_pool)
        if mode not in MODES:
            raise ImproperlyConfigured(f"unknown pool {mode!r}; there are {', '.join(MODES)}")
        size = int(self.concurrency or self.app.conf.worker_concurrency or os.cpu_count() or 1)
        size = 1 if mode == "solo" else size
        queues = list(self.queues) or [self.app.conf.task_default_queue]
        self._greet(mode, size, queues)
        self._report()
        self.app.engine.reports = False  # they are told as Celery tells them
        self.app.engine.listeners.add("run_ended", _tell)
        pool, end_zygote = self._make_pool(mode, size), self._start_zygote(mode)
        try:
            handles = [self._consume(name, pool) for name in queues]
            tune()
            log.info("%s ready.", self.hostname)
            return self._wait(signals, handles)
        finally:
            self.app.engine.stop(drain=False)
            pool.close(0.0)
            self.app.close()
            signals.close()
            end_zygote()

    def _make_pool(self, mode: str, size: int) -> Pool:
        conf, make = self.app.conf, self.app.engine.new_pool
        if MODES[mode] != "processes":
            return make(MODES[mode], size)
        if not self.place:
            raise ImproperlyConfigured("child processes must find the app: give -A module")
        os.environ[APP] = self.place
        memory = self.max_memory_per_child or conf.worker_max_memory_per_child or 0
        return make(
            MODES[mode],
            size,
            start_method=conf.worker_pool_start_method or "",
            preload=(_module_of(self.place),),
            resolve=RESOLVE,
            max_tasks_per_child=self.max_tasks_per_child or conf.worker_max_tasks_per_child or 0,
            max_memory_per_child=memory * 1024,
        )

    def _start_zygote(self, mode: str) -> Callable[[], None]:
        """Start what forks the children; it must come before the first thread."""
        if MODES[mode] != "processes" or self.app.conf.worker_pool_start_method:
            return lambda: None
        end: Callable[[], None] = start_zygote()
        return end

    def _consume(self, name: str, pool: Pool) -> ConsumerHandle:
        """Serve one queue with every task: any task may come on any queue."""
        served = [task.on(name) for task in self.app.tasks.values()]
        return self.app.engine.consume(served[0], pool=pool)

    def _wait(self, signals: StopSignals, handles: Sequence[ConsumerHandle]) -> int:
        """Warm shutdown at the first signal, cold at the second, or at once at SIGQUIT. Blocks."""
        number = signals.next()
        if number != getattr(signal, "SIGQUIT", None):
            threading.Thread(target=self._drain, args=(signals,), daemon=True).start()
            _say("Warm shutdown: waiting for running tasks; a second signal ends at once")
            if not (number := signals.next()):
                return 0
        _say("Cold shutdown: what runs goes back to its queue")
        end_fast(handles, 128 + number)
        return 128 + number

    def _drain(self, signals: StopSignals) -> None:
        self.app.engine.stop(drain=True, timeout=FOREVER)
        signals.tell_end()

    def _greet(self, mode: str, size: int, queues: Sequence[str]) -> None:
        conf = self.app.conf
        lines = [
            f" -------------- {self.hostname} (fsdf)",
            f"  app:          {self.place or self.app.main}",
            f"  transport:    {masked(conf.broker_url or 'sqlite')}",
            f"  results:      {masked(conf.result_backend or 'disabled')}",
            f"  concurrency:  {size} ({mode})",
            f"  queues:       {', '.join(self.app.wire_queue(name) for name in queues)}",
            "  [tasks]",
            *(f"    . {name}" for name in sorted(self.app.tasks)),
        ]
        print("\n".join(lines), file=sys.stderr, flush=True)

    def _report(self) -> None:
        """Say once what is configured and has no effect."""
        conf = self.app.conf
        if unused := conf.unused():
            log.warning("not yet used in this version: %s", ", ".join(unused))
        for name, meant in conf.misspelt().items():
            log.warning("unknown setting %r; did you mean %r?", name, meant)
        for task in self.app.tasks.values():
            if unused := task.unused():
                log.warning("task %s: not yet used: %s", task.name, ", ".join(unused))


def _module_of(place: str) -> str:
    """Return the module of an app that was found at `place`: "proj.celery" may be an attribute."""
    module = place.partition(":")[0]
    return module if module in sys.modules else module.rpartition(".")[0]


def _tell(job: Job, outcome: outcomes.Outcome) -> None:
    """Log the end of a run as Celery's users expect it: failures always."""
    kind = type(outcome)
    if kind is outcomes.Succeeded:
        log.info("Task %s[%s] succeeded", job.plan.name, job.id)
    elif kind is outcomes.Retry:
        log.info("Task %s[%s] retry: %s", job.plan.name, job.id, outcomes.describe(outcome))
    elif isinstance(outcome, outcomes.Failed):
        why, trace = outcomes.describe(outcome), outcomes.trace_of(outcome)
        log.error("Task %s[%s] raised %s\n%s", job.plan.name, job.id, why, trace)
    else:
        state = OF_OUTCOME.get(kind.__name__.lower(), kind.__name__.upper())
        log.warning("Task %s[%s] %s: %s", job.plan.name, job.id, state, outcomes.describe(outcome))


def _say(text: str) -> None:
    """Log in a thread: who has stopped reading the log keeps no signal from being followed."""
    threading.Thread(target=log.warning, args=(text,), daemon=True).start()


def resolve_plan(wire_queue: str, name: str) -> Plan:
    """Return a task's plan in a child process of the worker."""
    app = find_app(os.environ[APP])
    _import_tasks(app)
    return app.plan(wire_queue, name)


def _import_tasks(app: Celery) -> None:
    names = os.environ.get(INCLUDE, "").split(",")
    app.import_tasks(name.strip() for name in names if name.strip())
