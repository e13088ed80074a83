"""A Redis of our own on a free loopback port, without persistence, and what can be read off it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

__all__ = ["DATABASES", "RedisServer", "free_port"]

DATABASES = 8  # those that contestants may use; the others are kept
OPTIONS = ("--save", "", "--appendonly", "no", "--bind", "127.0.0.1")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """Started by `with RedisServer.running(folder) as server`."""

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            raise SystemExit(
                "no redis-server on the PATH: install it, e.g. apt install redis-server"
            )
        self.port = free_port()
        self.url = self.address(0)
        command = [binary, "--port", str(self.port), "--dir", str(folder), *OPTIONS]
        self.configuration = " ".join(["redis-server", *command[5:]])
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self._databases: dict[int, Any] = {}
        self.client: Any = self.database(0)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with contextlib.suppress(redis.ConnectionError):
                self.client.ping()
                return
            time.sleep(0.05)
        raise SystemExit(f"redis-server did not answer on port {self.port} within 20 s")

    @classmethod
    @contextlib.contextmanager
    def running(cls, folder: Path) -> Iterator[RedisServer]:
        """Start one, stop it at the end."""
        server = cls(folder)
        try:
            yield server
        finally:
            server.process.terminate()
            server.process.wait(20)

    @property
    def version(self) -> str:
        """The server's version."""
        return str(self.client.info("server")["redis_version"])

    def address(self, number: int) -> str:
        """The URL of a database."""
        return f"redis://127.0.0.1:{self.port}/{number}"

    def database(self, number: int) -> Any:
        """A client of a database."""
        if number not in self._databases:
            self._databases[number] = redis.Redis.from_url(self.address(number))
        return self._databases[number]

    def clear(self) -> None:
        """Delete everything that contestants have stored."""
        for number in range(DATABASES):
            self.database(number).flushdb()

    def cpu(self) -> float:
        """CPU seconds of its main thread so far."""
        info = self.client.info("cpu")
        return float(info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"])

    def calls(self) -> dict[str, int]:
        """How often each command was called so far, our own look at it left out."""
        stats = self.client.info("commandstats")
        return {
            name.removeprefix("cmdstat_"): int(row["calls"])
            for name, row in stats.items()
            if name != "cmdstat_info"
        }
