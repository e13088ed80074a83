"""Several worker processes under one supervisor: restarted when they die, drained at the end.

A child imports the modules that declare the tasks, consumes, and obeys one socket: a message on it
means drain, its end means that the parent is dead. Signals to the parent become such messages, so a
service manager that signals the whole group does no harm.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from .checks import check_shared
from .core.exit import hold_exit
from .core.family import Child, importing_main, inheritance, keep_main_file, starting
from .core.signals import on_signals
from .core.watcher import Watcher
from .declaration import title
from .errors import ConfigurationError, FsdfError, patience_of
from .worker_process import RESTART, Target, heard, serve, served

if TYPE_CHECKING:
    from .task import Task

__all__ = ["RESTART", "Supervisor", "importing_main", "run_consumer_with_multi_process"]
log = logging.getLogger("fsdf.supervisor")
UNGUARDED = 76  # the exit code of a child that starts processes where it imports the main module
_NAME = "fsdf-worker"
_GUARD = "put what starts processes under `if __name__ == '__main__':`"
GRACE = 30.0  # seconds that children have to drain
FORCE = 10.0  # seconds beyond that until they are killed
# So many lives this short within a minute, each without a fetch, are a crash loop. Who dies later
# may die of a message, which is given up before its service is.
SHORT, DEATHS, WITHIN = 5.0, 5, 60.0
BACKOFF, MOST_BACKOFF = 0.1, 10.0


class Supervisor:
    """Keeps `n` processes consuming `targets`. All methods may be called by any thread.

    `modules` are imported by each child first: those that declare the tasks. `start` is spawn,
    forkserver or fork; "" is what is usual here. `function` is "module:name"; a child calls it with
    the targets, and it returns how to stop (drain, timeout) and how to wait for the end.
    """

    def __init__(
        self,
        n: int,
        *,
        targets: Sequence[Target],
        modules: Sequence[str] = (),
        start: str = "",
        function: str = "fsdf_engine.children:consume_targets",
    ) -> None:
        if n < 1:
            raise ConfigurationError(f"{n} processes; give at least 1")
        self.n = n
        self._start_child = partial(
            Child, starting(start), _NAME, serve, 1,
            tuple(targets), tuple(modules), function, inheritance(),
        )  # fmt: skip
        keep_main_file()
        self._places = [_Place() for _ in range(n)]
        self._watcher = Watcher()
        self._order: tuple[bool, float] | None = None  # drain, timeout: to be sent
        self._kill_at: float | None = None
        self._stopping = False
        self._ended = threading.Event()
        self._failed = False
        self._thread = threading.Thread(target=self._live, name="fsdf-supervisor", daemon=True)
        self._release_exit: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Start the processes. Does not block; the interpreter stays until `stop`.

        Raises:
            ConfigurationError: this process is itself a child that is importing the main module.
        """
        if importing_main():
            if multiprocessing.current_process().name == _NAME:  # our parent says so, once
                raise SystemExit(UNGUARDED)
            raise ConfigurationError(f"this child process is importing the main module; {_GUARD}")
        self._release_exit = hold_exit()
        on_signals(self.ask_stop)
        self._thread.start()

    def stop(self, drain: bool = True, timeout: float = GRACE) -> None:
        """Drain for `timeout` seconds, then end all; without `drain` at once. Blocks."""
        self.ask_stop(drain, timeout)
        self._ended.wait()

    def ask_stop(self, drain: bool = True, timeout: float = GRACE) -> None:
        """As `stop`, without waiting for the end."""
        self._order = drain, timeout if drain else 0.0
        self._watcher.wake()

    def join(self, timeout: float | timedelta | None = None) -> bool:
        """Block until all processes have ended; False when `timeout` seconds passed before.

        Raises:
            FsdfError: they ended because each of them died again and again.
        """
        if not self._ended.wait(patience_of(timeout)):
            return False
        if self._failed:
            raise FsdfError(
                f"each of the {self.n} worker processes died {DEATHS} times at its start;"
                " the log has their errors"
            )
        return True

    @property
    def processes(self) -> list[int]:
        """The ids of the processes that live now."""
        return [place.worker.pid for place in self._places if place.worker]

    # ------------------------------------------------------------------ the thread

    def _live(self) -> None:
        try:
            while self._open():
                self._turn()
        except Exception:  # a thread's edge; without it nobody keeps the children
            log.exception("the supervisor failed; its processes are ended")
            self._failed = True
        finally:
            for place in self._places:
                if place.worker:
                    place.worker.kill()
            self._watcher.close()
            self._release_exit()
            self._ended.set()

    def _open(self) -> bool:
        if any(place.worker for place in self._places):
            return True
        if not (self._stopping or self._failed) and all(p.given_up for p in self._places):
            log.error("all %d processes die at their start; the supervisor ends", self.n)
            self._failed = True
        return not (self._stopping or self._failed)

    def _turn(self) -> None:
        now = time.monotonic()
        if not self._stopping:
            for place in self._places:
                if place.worker is None and not place.given_up and place.start_at <= now:
                    self._start(place)
        self._watcher.wait(self._pause(now))
        if self._order:
            self._send_order(*self._order)
            self._order = None
        if self._kill_at is not None and self._kill_at <= time.monotonic():
            self._kill_at = None
            for place in self._places:
                if place.worker:
                    log.error("process %d does not end; it is killed", place.worker.pid)
                    place.worker.kill()

    def _pause(self, now: float) -> float | None:
        times = [] if self._kill_at is None else [self._kill_at]
        if not self._stopping:
            times += [p.start_at for p in self._places if p.worker is None and not p.given_up]
        return max(0.0, min(times) - now) if times else None

    def _send_order(self, drain: bool, timeout: float) -> None:
        self._stopping = True
        self._kill_at = time.monotonic() + timeout + FORCE
        for place in self._places:
            if place.worker:
                with contextlib.suppress(OSError):  # it is dying by itself
                    place.worker.ends[0].sendall(json.dumps([drain, timeout]).encode() + b"\n")

    def _start(self, place: _Place) -> None:
        place.born, place.told = time.monotonic(), b""
        try:
            worker = place.worker = self._start_child()
        except Exception as error:
            log.error("the system starts no process: %s", error)
            place.died(time.monotonic())
            return
        self._watcher.add(_end_of(worker), partial(self._died, place, worker))
        log.info("process %d started", worker.pid)

    def _died(self, place: _Place, worker: Child) -> None:
        told = heard(worker.ends[0])
        place.told += told
        if told and worker.sentinel is None:
            return  # a word, and not the end of the stream
        self._watcher.drop(_end_of(worker))
        code = worker.bury()
        place.worker = None
        if self._stopping:
            return
        if code == RESTART:
            log.warning("process %d asked to be started again", worker.pid)
            place.start_at = 0.0
            return
        if code == UNGUARDED:
            self._end_unguarded()
            return
        log.warning("process %d ended with code %s; it is replaced", worker.pid, code)
        place.died(time.monotonic(), served(place.told))
        if place.given_up:
            log.error(
                "a process died %d times within %g s, each time at its start (last code %s);"
                " it is not started again", DEATHS, WITHIN, code,
            )  # fmt: skip

    def _end_unguarded(self) -> None:
        """Each child would do the same."""
        if not self._failed:
            log.error("children import the main module, which starts processes; %s", _GUARD)
        self._failed = True
        for place in self._places:
            place.given_up = True


def _end_of(worker: Child) -> socket.socket | int:
    """Return what becomes readable when it ends."""
    return worker.ends[0] if worker.sentinel is None else worker.sentinel


class _Place:
    """What outlives one process: how its predecessors ended. The supervisor's thread owns it."""

    def __init__(self) -> None:
        self.worker: Child | None = None
        self.born = self.start_at = 0.0
        self.told = b""  # what it has told us
        self.given_up = False
        self._short = 0  # how many in a row lived shortly
        self._deaths: deque[float] = deque(maxlen=DEATHS)  # of those among them that never served

    def died(self, now: float, has_served: bool = False) -> None:
        """Decide when the next one starts, or that none does."""
        lived = now - self.born >= SHORT
        self._short = 0 if lived else self._short + 1
        if lived or has_served:
            self._deaths.clear()
        else:
            self._deaths.append(now)
        self.given_up = len(self._deaths) == DEATHS and now - self._deaths[0] <= WITHIN
        pause = min(MOST_BACKOFF, BACKOFF * 2 ** min(self._short, 10))
        self.start_at = now + pause * random.uniform(0.5, 1.0)


# ------------------------------------------------------------------ for users


def run_consumer_with_multi_process(
    tasks: Task[..., Any] | Iterable[Task[..., Any]], process_num: int = 1
) -> Supervisor:
    """Consume one task or several in each of `process_num` supervised processes. Does not block.

    Put the call under `if __name__ == '__main__':`; the children import the main module, too.

    Raises:
        ConfigurationError: this process is a child that is importing its main module, or a task is
            declared where a child cannot find it.
    """
    several: list[Task[..., Any]] = [tasks] if hasattr(tasks, "push") else list(tasks)  # type: ignore[list-item]
    if not several:
        raise ConfigurationError("no task to consume; give at least one")
    for task in several:
        if task.home.nested:
            raise ConfigurationError(
                f"{title(task.fn)} is declared inside a function, where a child process"
                " cannot find it; declare it at the top level of a module"
            )
        check_shared(task)
    modules = sorted({module for task in several for module in task.home.modules})
    supervisor = Supervisor(
        process_num,
        targets=[(task.queue, task.options.name) for task in several],
        modules=tuple(modules),
    )
    supervisor.start()
    return supervisor
