"""What every scenario needs: the server, the meter, a folder, the options, the figures so far."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .contestants import RESULTS, Contestant
from .meter import CAPACITY, Meter
from .process import Worker, run_client
from .server import RedisServer
from .stock import Stock

__all__ = ["Bench", "Failure", "Options"]


class Failure(Exception):
    """A contestant did not do what was asked; the others go on."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    runs: int = 3
    window: float = 8.0  # seconds each side is measured for, at least
    messages: int = 0  # instead of what the window needs
    quick: bool = False
    only: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()


@dataclass(slots=True)
class Bench:
    """One bench run."""

    server: RedisServer
    meter: Meter
    folder: Path
    options: Options
    stock: Stock
    rows: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, options: Options) -> Iterator[Bench]:
        """Start the server; delete everything at the end."""
        shared = Path("/dev/shm")  # the meter on tmpfs: its pages are then told apart from RSS
        with (
            tempfile.TemporaryDirectory(prefix="fsdf-bench-") as name,
            tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as memory,
            RedisServer.running(Path(name)) as server,
        ):
            yield cls(server, Meter(Path(memory)), Path(name), options, Stock(server))

    def add(self, scenario: str, name: str, run: int, **figures: Any) -> dict[str, Any]:
        """Record one measurement, as it is, and show it."""
        row = {"scenario": scenario, "name": name, "run": run, **figures}
        self.rows.append(row)
        shown = ", ".join(f"{key} {_short(value)}" for key, value in figures.items())
        print(f"  [{run}] {scenario:11} {name:34} {shown}", flush=True)
        return row

    def contestants(self, among: tuple[Contestant, ...]) -> list[Contestant]:
        """Those the options ask for."""
        only = self.options.only
        return [one for one in among if not only or any(word in one.name for word in only)]

    def environment(self, one: Contestant, *, results: bool = False) -> dict[str, str]:
        """A contestant's environment for this server."""
        return one.variables(self.server.url, self.folder, results=results)

    def fresh(self) -> None:
        """Forget everything that brokers and meter hold."""
        self.server.clear()
        for path in self.folder.glob("queue.db*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.meter.clear(CAPACITY)

    @contextlib.contextmanager
    def worker(
        self,
        one: Contestant,
        environment: Mapping[str, str],
        arguments: tuple[str, ...] = (),
        warm: int = 200,
    ) -> Iterator[Worker]:
        """A worker that has started and run `warm` messages."""
        command = [part.format(url=self.server.url) for part in (*one.command(), *arguments)]
        log = self.folder / "worker.log"
        worker = Worker(command, {**environment, **self.meter.environment}, log)
        try:
            if warm:
                self.fill(one, environment, warm)
                self.await_runs(worker, warm, 30)
            yield worker
        finally:
            worker.stop()

    def fill(self, one: Contestant, environment: Mapping[str, str], count: int) -> None:
        """Let the numbers 0 .. count-1 wait: published now, or copies of what was."""
        if not one.queue:
            run_client(one.app, "fill", count, environment, self.folder)
            return

        def publish(url: str, first: int, end: int) -> None:
            there = {**environment, "BENCH_REDIS_URL": url}
            run_client(one.app, "fill", f"{first}-{end}", there, self.folder)

        self.server.database(RESULTS).flushdb()  # the copies have ids that have results
        self.stock.lay_out(one.stock, one.queue, count, publish)

    def await_runs(self, worker: Worker, count: int, timeout: float, between: Any = None) -> None:
        """Wait until the messages below `count` have run.

        Raises:
            Failure: they have not within `timeout` seconds; with the worker's last words.
        """
        if not self.meter.wait(count, timeout, between):
            done = len(self.meter.runs(count))
            raise Failure(f"{done} of {count} ran within {timeout:.0f} s: {worker.output()}")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
    return str(value)
