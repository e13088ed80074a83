"""Waiting and real servers for tests; every wait has a bound that a failure reaches."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

BOUND = 20.0


def until(condition: Callable[[], object], bound: float = BOUND) -> None:
    """Wait until `condition()` holds; for what other processes bring about and nothing signals."""
    pause = threading.Event()
    for _ in range(int(bound / 0.005) + 1):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError(f"{getattr(condition, '__name__', condition)} not within {bound} s")


def ending(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what a process of which lines have been read says until it ends, and its errors.

    `communicate` with a timeout would lose what `readline` has read ahead.
    """
    errors: list[str] = []

    def read() -> None:
        errors.append(process.stderr.read() if process.stderr else "")

    watch, reader = threading.Timer(BOUND, process.kill), threading.Thread(target=read)
    watch.start()
    reader.start()
    said = process.stdout.read() if process.stdout else ""
    reader.join()
    process.wait()
    watch.cancel()
    return said, errors[0]


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on.

    Each process of a test run has a range of its own, below those that systems give to outgoing
    connections: a server that restarts finds its port free. At most 22,000: a Redis in cluster
    mode takes the port 10,000 above its own, too.
    """
    own = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8
    while True:
        port = random.randrange(10_000 + own * 1_500, 11_500 + own * 1_500)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def require(binary: str) -> str:
    """Return the path of a server's program; without it skip, or fail where it must be there."""
    if path := shutil.which(binary):
        return path
    reason = f"{binary} is not installed; scripts/services install"
    if os.environ.get("FSDF_REQUIRE_SERVICES", "") not in ("", "0"):
        pytest.fail(reason)
    pytest.skip(reason)


class RedisServer:
    """A Redis of the test's own. Its port and its folder stay the same over restarts."""

    def __init__(
        self,
        folder: Path,
        *,
        aof: bool = False,
        password: str | None = None,
        unix: bool = False,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self.binary = require("redis-server")
        self.port = free_port()
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(folder),
            "save": "",
            "appendonly": "yes" if aof else "no",
            "enable-debug-command": "yes",
        }
        user = f":{password}@" if password else ""
        self.url = f"redis://{user}127.0.0.1:{self.port}/0"
        if password:
            options["requirepass"] = password
        if unix:
            # A socket's path may have 107 bytes only, which a test's own folder can exceed.
            path = folder / "s" if len(str(folder)) < 100 else Path(f"/tmp/fsdf-{self.port}.sock")
            options["unixsocket"] = str(path)
            self.url = f"unix://{user}{path}?db=0"
        self.options = {**options, **(config or {})}

    def start(self) -> None:
        """Start it and wait until it has read its data and answers."""
        assert self.process is None, "it runs already"
        arguments = [part for k, v in self.options.items() for part in (f"--{k}", v)]
        self.process = subprocess.Popen(
            [self.binary, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C ends the tests first, and those end the server
        )
        output, said = self.process.stdout, []
        assert output is not None
        for line in output:
            said.append(line)
            if "Ready to accept" in line:
                break
        else:
            self.process = None
            raise AssertionError("redis-server did not start:\n" + "".join(said))
        threading.Thread(target=output.read, daemon=True, name="redis-log").start()

    def stop(self) -> None:
        """End it in order (SIGTERM). Idempotent."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL). Idempotent."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)  # a test may have stopped it
        process.send_signal(how)
        try:
            process.wait(BOUND)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def signal_each(processes: Iterable[psutil.Process], number: int) -> None:
    """Signal processes as service managers do: one that ends meanwhile is no error."""
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(number)


def insist(process: subprocess.Popen[str], number: int) -> None:
    """Send a signal again until the process ends: the same one within 0.1 s is an echo."""

    def gone() -> bool:
        process.send_signal(number)
        return process.poll() is not None

    until(gone)
