"""A RabbitMQ of our own, beside Redis, for as long as a scenario lasts."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.server import Problem, place, within
from scripts.servers import RabbitMQ

from .server import free_port

__all__ = ["rabbit"]
BOUND = 60.0  # seconds; it takes 9 s where nobody else works


@contextlib.contextmanager
def rabbit() -> Iterator[RabbitMQ]:
    """Start one; at the end it and its data are gone."""
    try:
        RabbitMQ.needed()
    except Problem as problem:
        raise SystemExit(str(problem)) from None
    folder = Path(tempfile.mkdtemp(prefix="rabbitmq-", dir=place()))
    folder.chmod(0o711)  # the server's user has to pass
    (folder / "data").mkdir()
    server = RabbitMQ(folder / "data", [free_port() for _ in RabbitMQ.wanted])
    server.prepare()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes = server.launch(subprocess.DEVNULL)
        if not within(BOUND, server.healthy):
            raise SystemExit(f"rabbitmq-server did not answer within {BOUND:.0f} s")
        yield server
    finally:
        for process in reversed(processes):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
