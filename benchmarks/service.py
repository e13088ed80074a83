"""A server of our own, beside Redis, for as long as a scenario lasts."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from scripts.server import Problem, Server, place, within

from .server import free_port

__all__ = ["own"]
BOUND = 60.0  # seconds; RabbitMQ takes 9 s where nobody else works
AnyServer = TypeVar("AnyServer", bound=Server)


@contextlib.contextmanager
def own(kind: type[AnyServer]) -> Iterator[AnyServer]:
    """Start one; at the end it and its data are gone."""
    try:
        kind.needed()
    except Problem as problem:
        raise SystemExit(str(problem)) from None
    folder = Path(tempfile.mkdtemp(prefix=f"{kind.name}-", dir=place()))
    folder.chmod(0o711)  # the server's user has to pass
    (folder / "data").mkdir()
    server = kind(folder / "data", [free_port() for _ in kind.wanted])
    server.prepare()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes = server.launch(subprocess.DEVNULL)
        if not within(BOUND, server.healthy):
            raise SystemExit(f"{kind.name} did not answer within {BOUND:.0f} s")
        yield server
    finally:
        for process in reversed(processes):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(kind.ending)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
