"""Programs of old code, run as their users run them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import BOUND, until

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


class Program:
    """A script that runs, and what it has said so far."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, cwd=folder, env=environment,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while part := os.read(self.process.stdout.fileno(), 1 << 16):
            self.said += part.decode(errors="replace")

    def until(self, pattern: str, count: int = 1, bound: float = 3 * BOUND) -> list[str]:
        """Wait until it has said so many matches, and return all of them."""

        def there() -> bool:
            if self.process.poll() is not None and not self._reader.is_alive():
                assert len(re.findall(pattern, self.said)) >= count, self.said
            return len(re.findall(pattern, self.said)) >= count

        until(there, bound)
        return re.findall(pattern, self.said)

    def end(self) -> str:
        """Signal it to drain; it must end in order. Return all that it has said."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(2 * BOUND)
        self._reader.join(BOUND)
        assert code == 0, self.said
        return self.said

    def wait(self) -> int:
        """Wait until it ends by itself; return its exit code."""
        code = self.process.wait(2 * BOUND)
        self._reader.join(BOUND)
        return code


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """`run("2_1")` runs that block; with `speed` its clock, and only its own, is faster.

    `run("", code=...)` runs other code.
    """
    programs: list[Program] = []

    def start(
        block: str, speed: float = 1, place: str = "script.py", code: str = "", **variables: str
    ) -> Program:
        script = tmp_path / place
        script.parent.mkdir(parents=True, exist_ok=True)
        if code:
            script.write_text(code, encoding="utf-8")
        else:
            shutil.copy(HERE / "blocks" / f"{block}.py", script)
        runner = [] if speed == 1 else [str(HERE / "run_block.py")]
        path = [str(ROOT), str(tmp_path), str(HERE / "stand_ins")]
        environment = {
            **os.environ, **variables, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8",
        }  # fmt: skip
        arguments = [*runner, str(script), *([] if speed == 1 else [str(speed)])]
        programs.append(Program(arguments, tmp_path, environment))
        return programs[-1]

    yield start
    for program in programs:
        program.process.kill()
        program.process.wait()
