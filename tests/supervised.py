"""What the children of a supervisor do in its tests, instead of consuming a queue."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

Stop = Callable[[bool, float], object]


def note(folder: str, what: str) -> None:
    """Leave a line that the test can wait for."""
    with open(Path(folder) / "log", "ab", buffering=0) as file:
        file.write(f"{what} {os.getpid()}\n".encode())


def steady(targets: Sequence[tuple[str, str]]) -> tuple[Stop, Callable[[], None]]:
    """Live until told to stop, and note with what arguments."""
    ((folder, _),) = targets
    end = threading.Event()

    def stop(drain: bool, timeout: float) -> None:
        note(folder, f"stop {drain} {timeout:g}")
        end.set()

    note(folder, "start")
    return stop, lambda: end.wait() and None


def stubborn(targets: Sequence[tuple[str, str]]) -> tuple[Stop, Callable[[], None]]:
    """Ignore what it is told, in a C loop: only a kill ends it."""
    ((folder, _),) = targets
    note(folder, "start")
    return lambda drain, timeout: None, lambda: sum(range(10**12)) and None


def crashing(targets: Sequence[tuple[str, str]]) -> tuple[Stop, Callable[[], None]]:
    """Die at the start."""
    note(targets[0][0], "start")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def asking(targets: Sequence[tuple[str, str]]) -> tuple[Stop, Callable[[], None]]:
    """Ask to be started again, nine times; more often than a crash loop may."""
    folder = targets[0][0]
    note(folder, "start")
    if len((Path(folder) / "log").read_text().splitlines()) < 10:
        raise SystemExit(75)
    return steady(targets)
