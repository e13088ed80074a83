"""Contestants' processes: a worker with all its children, and a publishing client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Worker", "run_client"]

ROOT = Path(__file__).resolve().parent.parent


def _environment(extra: Mapping[str, str], role: str, folder: Path) -> dict[str, str]:
    # the scratch folder first: some contestants write files into the first folder of the path
    path = os.pathsep.join(filter(None, [str(folder), str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "BENCH_ROLE": role, **extra}


class Worker:
    """A worker command and its children. Held still, it uses no CPU while its queue is filled."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=log.parent,
                env=_environment(environment, "worker", log.parent),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._root = psutil.Process(self._process.pid)

    @property
    def ended(self) -> bool:
        """It exited by itself: it failed to start, or crashed."""
        return self._process.poll() is not None

    def output(self) -> str:
        """The end of what it printed, to tell why it failed."""
        return self.log.read_text(errors="replace")[-2000:]

    def tree(self) -> list[psutil.Process]:
        """The processes alive now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self._root, *self._root.children(recursive=True)]
        return []

    def _sum(self, figure: Callable[[psutil.Process], float]) -> float:
        total = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess, OSError):
                total += figure(process)
        return total

    def cpu(self) -> float:
        """CPU seconds so far, with children, also those that have ended and were waited for."""
        return self._sum(lambda process: sum(process.cpu_times()[:4]))

    def rss(self) -> float:
        """Resident megabytes of all processes; tmpfs pages (the meter) are left out."""

        def resident(process: psutil.Process) -> float:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            wanted = ("RssAnon:", "RssFile:")
            return sum(int(line.split()[1]) for line in lines if line.startswith(wanted)) / 1024

        return self._sum(resident)

    def hold(self) -> None:
        """Stop every process of the tree where it is."""
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def release(self) -> None:
        """Let them go on, the children first."""
        for process in reversed(self.tree()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def stop(self) -> None:
        """Ask it to end, then end what is left of its session."""
        if not self.ended:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def run_client(
    app: str, action: str, argument: object, environment: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    """Run benchmarks.client to its end; return its answer.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    command = [sys.executable, "-m", "benchmarks.client", app, action, str(argument)]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=_environment(environment, "client", folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{app} {action} {argument} did not end within 300 s") from error
    if done.returncode:
        raise RuntimeError(f"{app} {action} failed: {(done.stdout + done.stderr)[-1500:]}")
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return answer
