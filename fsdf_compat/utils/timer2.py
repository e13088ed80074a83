"""A timer with a thread of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from itertools import count
from threading import TIMEOUT_MAX as THREAD_TIMEOUT_MAX
from typing import Any

from kombu.asynchronous.timer import Entry, logger, to_timestamp
from kombu.asynchronous.timer import Timer as Schedule

__all__ = ["Entry", "Schedule", "Timer", "to_timestamp"]


class Timer(threading.Thread):
    """Calls functions when they are due, each in its turn, in this thread."""

    Entry = Entry
    Schedule = Schedule
    running = False
    on_tick: Callable[[float], None] | None = None
    _timer_count = count(1)

    def __init__(
        self,
        schedule: Any = None,
        on_error: Callable[[Exception], None] | None = None,
        on_tick: Callable[[float], None] | None = None,
        on_start: Callable[[Timer], None] | None = None,
        max_interval: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=f"Timer-{next(self._timer_count)}", daemon=True)
        if schedule is None:
            schedule = self.Schedule(on_error=on_error, max_interval=max_interval)
        self.schedule = schedule
        self.scheduler: Any = None
        self.on_start = on_start
        self.on_tick = on_tick or self.on_tick
        self.__is_shutdown = threading.Event()
        self.__is_stopped = threading.Event()
        self.mutex = threading.Lock()
        # Told of entries that come, and of the end: either may change how long to wait.
        self.not_empty = threading.Condition(self.mutex)

    def _next_entry(self) -> float | None:
        """Run what is due; return how long to wait otherwise."""
        with self.not_empty:
            delay, entry = next(self.scheduler)
            if entry is None:
                if delay is None and not self.__is_shutdown.is_set():
                    self.not_empty.wait(1.0)
                return delay
        return self.schedule.apply_entry(entry)

    __next__ = next = _next_entry

    def run(self) -> None:
        self.running = True
        self.scheduler = iter(self.schedule)
        try:
            while not self.__is_shutdown.is_set():
                delay = self._next_entry()
                if delay:
                    if self.on_tick:
                        self.on_tick(delay)
                    self._wait(delay)
        except Exception as error:
            logger.error("Thread Timer crashed: %r", error, exc_info=True)
            sys.stderr.flush()
            # Nobody would be called any more: the process ends, as for `bgThread`.
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            self.__is_stopped.set()

    def _wait(self, delay: float) -> None:
        with self.not_empty:
            if not self.__is_shutdown.is_set():
                self.not_empty.wait(delay)

    def stop(self) -> None:
        """Wait for what runs, and for the thread's end."""
        with self.not_empty:
            self.__is_shutdown.set()
            self.not_empty.notify_all()
        if self.running:
            self.__is_stopped.wait()
            self.join(THREAD_TIMEOUT_MAX)
            self.running = False

    def ensure_started(self) -> None:
        """Start the thread, once."""
        if not self.running and not self.is_alive():
            if self.on_start:
                self.on_start(self)
            self.start()

    def _do_enter(self, meth: str, *args: Any, **kwargs: Any) -> Any:
        self.ensure_started()
        with self.not_empty:
            entry = getattr(self.schedule, meth)(*args, **kwargs)
            self.not_empty.notify()
        return entry

    def enter(self, entry: Any, eta: Any, priority: int | None = None) -> Any:
        return self._do_enter("enter_at", entry, eta, priority=priority)

    def call_at(self, *args: Any, **kwargs: Any) -> Any:
        return self._do_enter("call_at", *args, **kwargs)

    def enter_after(self, *args: Any, **kwargs: Any) -> Any:
        return self._do_enter("enter_after", *args, **kwargs)

    def call_after(self, *args: Any, **kwargs: Any) -> Any:
        return self._do_enter("call_after", *args, **kwargs)

    def call_repeatedly(self, *args: Any, **kwargs: Any) -> Any:
        return self._do_enter("call_repeatedly", *args, **kwargs)

    def exit_after(self, secs: float, priority: int = 10) -> None:
        self.call_after(secs, sys.exit, priority)

    def cancel(self, tref: Any) -> None:
        tref.cancel()

    def clear(self) -> None:
        self.schedule.clear()

    def empty(self) -> bool:
        return not len(self)

    def __len__(self) -> int:
        return len(self.schedule)

    def __bool__(self) -> bool:
        return True

    @property
    def queue(self) -> Any:
        return self.schedule.queue
