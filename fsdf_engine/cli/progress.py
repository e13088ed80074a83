"""How far a long command has come, where a terminal watches."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["progress"]
AFTER = 0.5  # seconds; what takes less shows nothing


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr until the block ends; yield what tells how many more are done.

    Without `total` it only moves: what the broker does in one step has no parts to be counted.
    """
    if not sys.stderr.isatty():
        yield lambda more: None
        return
    shown = _Shown(what, total)
    timer = threading.Timer(AFTER, shown.start)
    timer.daemon = True
    timer.start()
    try:
        yield shown.advance
    finally:
        timer.cancel()
        timer.join()
        shown.stop()


class _Shown:
    def __init__(self, what: str, total: int | None) -> None:
        self._what, self._total, self._done = what, total, 0
        self._bar: Progress | None = None

    def start(self) -> None:
        """Draw, from now on ten times a second in a thread of its own."""
        from rich import progress as parts  # slow to import, and most commands are quick
        from rich.console import Console

        columns = [parts.TextColumn("{task.description}"), parts.BarColumn()]
        if self._total is not None:
            columns += [parts.MofNCompleteColumn(), parts.TimeRemainingColumn()]
        columns.append(parts.TimeElapsedColumn())
        bar = parts.Progress(*columns, console=Console(stderr=True), transient=True)
        task = bar.add_task(self._what, total=self._total)
        self._bar = bar
        bar.update(task, completed=self._done)  # after `_bar` is set: `advance` does the rest
        bar.start()

    def advance(self, more: int) -> None:
        """Count what is done."""
        self._done += more
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
