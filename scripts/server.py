"""What every server of the tests has: its folder, its ports, its processes, and where they lie."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, ClassVar

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "services"
BOUND = 60.0  # seconds within which a server starts or stops, on a busy machine
LOOPBACK = "127.0.0.1"


class Problem(Exception):
    """What the user has to be told."""


class Server:
    """One server on loopback: `data` is a folder of its own, `ports` has as many as `wanted`."""

    name: ClassVar[str]
    programs: ClassVar[
        tuple[str, ...]
    ]  # where it is looked for: names on PATH, or patterns of paths
    packages: ClassVar[tuple[str, ...]]
    oldest: ClassVar[tuple[int, ...]]  # the oldest version that will do
    wanted: ClassVar[tuple[int, ...]]  # ports, or, if one is taken, any free one
    user: ClassVar[str] = ""  # who runs it where we are root, which some servers refuse
    ending: ClassVar[signal.Signals] = signal.SIGTERM  # what ends it in order, and at once

    def __init__(self, data: Path, ports: Sequence[int]) -> None:
        self.data = data
        self.ports = tuple(ports)
        self.port = self.ports[0]

    @classmethod
    def program(cls) -> str | None:
        """Return the path of the server's program: of several the last, which is the newest."""
        for name in cls.programs:
            folder, _, pattern = name.partition("*")
            if pattern:
                found = sorted(Path(folder).glob("*" + pattern), key=lambda p: numbers(str(p)))
                if found:
                    return str(found[-1])
            elif path := shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
                return path
        return None

    @classmethod
    def version(cls) -> str:
        said = subprocess.run([cls.needed(), "--version"], capture_output=True, text=True).stdout
        found = re.search(r"\d+(\.\d+)+", said)
        return found[0] if found else "0"

    @classmethod
    def needed(cls) -> str:
        if path := cls.program():
            return path
        raise Problem(f"{cls.name} is not installed; scripts/services install {cls.name}")

    def prepare(self) -> None:
        """Make in `data` what the server has to find there; once for each `data`."""

    def commands(self) -> list[list[str]]:
        """Return what to run: the server, and before it what it needs beside it."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def healthy(self) -> bool:
        raise NotImplementedError

    def variables(self) -> dict[str, str]:
        """Return what the tests are told: FSDF_TEST_... and its value."""
        raise NotImplementedError

    def launch(self, output: IO[bytes] | int) -> list[subprocess.Popen[bytes]]:
        """Start its processes, and return them, the server itself as the last one."""
        return [self.spawn(command, output) for command in self.commands()]

    def spawn(self, command: list[str], output: IO[bytes] | int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=self.data,
            env={**os.environ, **self.environment()},
            start_new_session=True,  # Ctrl-C in this terminal is not meant for it
            **self.identity(),
        )

    def identity(self) -> dict[str, object]:
        if not self.user or os.geteuid() != 0:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def silent(self) -> bool:
        """Say whether nothing listens on its ports: threads of what was killed live a moment on."""
        return not any(listens(port) for port in self.ports)

    def own(self, *folders: Path) -> None:
        """Make folders that belong to the server's user, and to nobody else."""
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
            if identity := self.identity():
                os.chown(folder, identity["user"], identity["group"])  # type: ignore[arg-type]

    def run(self, *command: str) -> None:
        done = subprocess.run(
            command, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, **self.identity()
        )
        if done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise Problem(f"{command[0]} failed:\n{said[-2000:]}")

    def copy_template(self, make: Callable[[Path], None]) -> None:
        """Fill `data` as `make` does; what it made is kept, and copied the next time."""
        CACHE.mkdir(parents=True, exist_ok=True)
        kept = CACHE / f"{self.name}-{self.version()}"
        with open(CACHE / f"{self.name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.is_dir():
                made = Path(tempfile.mkdtemp(dir=place()))
                made.chmod(0o711)
                try:
                    self.own(made / "data")
                    make(made / "data")
                    copied = kept.with_suffix(".new")
                    shutil.rmtree(copied, ignore_errors=True)
                    subprocess.run(["cp", "-a", made / "data", copied], check=True)
                    copied.rename(kept)
                finally:
                    shutil.rmtree(made, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        subprocess.run(["cp", "-a", kept, self.data], check=True)


def place() -> Path:
    """Return a folder for data of servers: below the system's temporary one.

    Where we are root, servers run as users of their own, which need search permission on every
    folder above their data. A checkout may lie where they have none, and so may TMPDIR.
    """
    own = hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:8]
    bases = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]
    open_to_all = [b for b in bases if all(p.stat().st_mode & 1 for p in (b, *b.parents))]
    if not open_to_all:
        raise Problem(
            "no temporary folder can be reached by every user; make /tmp one of mode 1777"
        )
    folder = open_to_all[0] / f"fsdf-{os.geteuid()}-{own}"
    folder.mkdir(mode=0o711, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise Problem(f"{folder} belongs to somebody else; remove it")
    folder.chmod(0o711)
    return folder


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def ask(port: int, question: bytes) -> bytes:
    """Return the first bytes of a server's answer; none if there is none within two seconds."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
            connection.sendall(question)
            return connection.recv(4096)
    except OSError:
        return b""


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0


def within(bound: float, condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + bound
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
