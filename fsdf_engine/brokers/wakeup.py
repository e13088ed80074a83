"""Wake-ups between the processes of one machine: no polling, and no cost when nobody waits.

Beside a database lies the folder `<database>.bell`: `map`, a memory-mapped table with one slot per
waiter, and a datagram socket per slot, named by its number. A waiter writes the mark of what it
waits for into its slot, looks once more at the database, then blocks on its socket. A publisher
reads the map after its commit and sends to the marked slots only. Where a folder cannot hold
sockets (Windows, some network file systems) a slot names a UDP port of the loopback instead.
"""

from __future__ import annotations

# The C module: gevent and eventlet patch `socket`, and a consumer waits in a native thread.
import _socket
import contextlib
import errno
import functools
import hashlib
import mmap
import os
import struct
import tempfile
import weakref
from collections.abc import Callable
from typing import Any

from .owned import identity, make_folder, open_file
from .process_lock import exclusive

__all__ = ["WakeUps", "Waiter", "mark"]

SLOTS = 1024
_MARK = 8  # bytes
_MARKS = SLOTS * _MARK
_FREE = bytes(_MARK)
_NOBODY = bytes(_MARKS)
_PORTS = struct.Struct("!H")
_UNIX_PATH = 100  # bytes: sun_path holds 104 on BSD and macOS, 108 on Linux
_LOOPBACK = "127.0.0.1"


@functools.lru_cache(maxsize=1024)
def mark(name: str) -> bytes:
    """Return what stands for a name in the map; equal marks of two names don't happen."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_MARK).digest()


def _short(folder: str) -> str | None:
    """Return a path to the folder that fits into a socket's address, or None.

    A long one is reached by a link in a folder of this user. The sockets stay where they are, so
    that processes with other temporary folders find them too.
    """
    if len(os.fsencode(folder)) <= _UNIX_PATH - 5:
        return folder
    base = os.path.join(tempfile.gettempdir(), f"fsdf-{os.geteuid()}")
    link = os.path.join(base, hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest())
    if len(os.fsencode(link)) > _UNIX_PATH - 5:
        return None
    make_folder(base, 0o700, os.geteuid())
    with contextlib.suppress(FileExistsError):  # its name is derived from its target
        os.symlink(folder, link)
    return link if os.readlink(link) == folder else None


def _out(family: int) -> _socket.socket:
    """Return a socket to send from, which never blocks."""
    found = _socket.socket(family, _socket.SOCK_DGRAM)
    found.setblocking(False)
    return found


def _sent(out: _socket.socket, data: bytes, address: str | tuple[str, int]) -> bool | None:
    """Send; False: nobody is there, None: there is no room."""
    try:
        out.sendto(data, address)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.EMSGSIZE):
            return None
        return False
    return True


class WakeUps:
    """The map of one database, as those see it who ring. Any thread, any process."""

    def __init__(self, path: str) -> None:
        """Open the folder `<path>.bell` of an existing file, making it if need be.

        Raises:
            ServerRefused: somebody else has put something there.
            OSError: the folder cannot be made or written.
        """
        self.folder = os.path.realpath(path) + ".bell"
        facts = os.stat(path)
        self.mode = facts.st_mode & 0o666  # whoever shares the database shares its wake-ups
        make_folder(self.folder, self.mode | self.mode >> 2 & 0o111, facts.st_uid)
        self._identity = identity(self.folder)
        unix = hasattr(_socket, "AF_UNIX")
        self.sockets = _short(self.folder) if unix else None
        self._map = self._open_map()
        self._unix = _out(_socket.AF_UNIX) if unix else None
        self._udp = _out(_socket.AF_INET)
        self._free = weakref.finalize(self, _close, self._unix, self._udp, self._map)

    def _open_map(self) -> mmap.mmap:
        length = _MARKS + SLOTS * _PORTS.size
        fd = open_file(os.path.join(self.folder, "map"), self.mode)
        try:
            if os.fstat(fd).st_size < length:
                os.ftruncate(fd, length)
            return mmap.mmap(fd, length)
        finally:
            os.close(fd)

    def lasts(self) -> bool:
        """Say whether the folder is still there."""
        return identity(self.folder) == self._identity

    def ring(self, name: str, count: int = 1) -> None:
        """Wake up to `count` of those who wait for this name. Never blocks."""
        if (marks := self._map[:_MARKS]) == _NOBODY:  # ten times as fast as to search for a name
            return
        wanted = mark(name)
        at = marks.find(wanted)
        while at >= 0 and count > 0:
            slot, astray = divmod(at, _MARK)
            if not astray and self.armed(slot, wanted):
                self.disarm(slot)  # so that the next one rings somebody else
                count -= self.send(slot)
            at = marks.find(wanted, at + 1)

    def send(self, slot: int, data: bytes = b"!") -> bool:
        """Send to the owner of a slot; False if there is none. Never blocks.

        Raises:
            BlockingIOError: `data` is more than a bare ring and did not fit; one that is there
                already will wake the owner.
        """
        if port := self.port(slot):
            return _sent(self._udp, b"!", (_LOOPBACK, port)) is not False
        if self._unix is None or self.sockets is None:
            return False
        address = f"{self.sockets}/{slot}"
        sent = _sent(self._unix, data, address)
        if sent is None:
            # Unread rings of others count against our socket: a fresh one tells whose queue is full
            with contextlib.closing(_out(_socket.AF_UNIX)) as fresh:
                sent = _sent(fresh, data, address)
        if sent is None and data != b"!":
            raise BlockingIOError
        return sent is not False  # an owner whose queue is full has been rung

    def arm(self, slot: int, wanted: bytes) -> None:
        """From now on whoever rings for this mark sends to this slot."""
        self._map[slot * _MARK : slot * _MARK + _MARK] = wanted

    def disarm(self, slot: int) -> None:
        """Take the mark away."""
        self._map[slot * _MARK : slot * _MARK + _MARK] = _FREE

    def armed(self, slot: int, wanted: bytes) -> bool:
        """Say whether the slot carries this mark."""
        return self._map[slot * _MARK : slot * _MARK + _MARK] == wanted

    def port(self, slot: int) -> int:
        """Return the UDP port of a slot, 0 for a socket in the folder."""
        found: int = _PORTS.unpack_from(self._map, _MARKS + slot * _PORTS.size)[0]
        return found

    def set_port(self, slot: int, port: int) -> None:
        """Say where the owner of a slot listens."""
        _PORTS.pack_into(self._map, _MARKS + slot * _PORTS.size, port)

    def close(self) -> None:
        """Free the map and the sockets. Idempotent; without it they go with the last reference."""
        self._free()


def _close(*things: mmap.mmap | _socket.socket | None) -> None:
    for thing in things:
        if thing is not None:
            thing.close()


class Waiter:
    """One slot and its socket. Slots of dead processes are taken over.

    `arm`, `block` and `disarm` belong to one thread. `factory` makes the socket: the default
    blocks its native thread also where `socket` is patched.
    """

    def __init__(
        self, wakeups: WakeUps, name: str, factory: Callable[[int, int], Any] = _socket.socket
    ) -> None:
        """Claim a slot.

        Raises:
            OSError: every slot is in use.
        """
        self._wakeups, self.name = wakeups, name
        self._pid = os.getpid()
        with exclusive(os.path.join(wakeups.folder, "lock")):
            self.slot, self._socket = _claim(wakeups, factory)

    @property
    def inherited(self) -> bool:
        """True in a child that was forked after this was made: the parent owns the slot."""
        return self._pid != os.getpid()

    def rings(self, wakeups: WakeUps) -> bool:
        """Say whether this is a place of our own where those who share the database send."""
        return self._wakeups is wakeups and not self.inherited

    def arm(self) -> None:
        """From now on rings arrive. Look for what you wait for after this, then block."""
        self._wakeups.arm(self.slot, mark(self.name))

    def disarm(self) -> None:
        """Rings go elsewhere again."""
        self._wakeups.disarm(self.slot)

    def block(self, timeout: float | None) -> list[bytes]:
        """Block until rung or until the timeout; return and swallow all that came so far.

        With 0 it only swallows, with None it has no timeout.
        """
        found: list[bytes] = []
        self._socket.settimeout(max(0.0005, timeout) if timeout else timeout)
        try:
            found.append(self._socket.recv(1 << 18))
            self._socket.settimeout(0)
            while True:
                found.append(self._socket.recv(1 << 18))
        except (TimeoutError, BlockingIOError, ConnectionResetError):
            return found

    def wake(self) -> None:
        """End the current or the next block. Any thread."""
        self._wakeups.send(self.slot)

    def close(self) -> None:
        """Give the slot back, and pass on a ring that nobody will follow now."""
        if not self.inherited and self._wakeups.lasts():
            self.disarm()
            if self._wakeups.port(self.slot):
                self._wakeups.set_port(self.slot, 0)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._wakeups.sockets}/{self.slot}")
            self._wakeups.ring(self.name)
        self._socket.close()


def _claim(wakeups: WakeUps, factory: Callable[[int, int], Any]) -> tuple[int, Any]:
    """Return a slot without a living owner and a socket bound to it; the caller holds the lock."""
    for slot in range(SLOTS):
        if _owned(wakeups, slot):
            continue
        wakeups.disarm(slot)
        if wakeups.sockets is not None:
            path = f"{wakeups.sockets}/{slot}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            with contextlib.suppress(OSError):  # no sockets on this file system
                listener = factory(_socket.AF_UNIX, _socket.SOCK_DGRAM)
                listener.bind(path)
                os.chmod(path, wakeups.mode)
                wakeups.set_port(slot, 0)
                return slot, listener
        listener = factory(_socket.AF_INET, _socket.SOCK_DGRAM)
        listener.bind((_LOOPBACK, 0))
        wakeups.set_port(slot, listener.getsockname()[1])
        return slot, listener
    raise OSError(errno.EMFILE, f"more than {SLOTS} waiters on this database", wakeups.folder)


def _owned(wakeups: WakeUps, slot: int) -> bool:
    """Say whether a living process has the slot. Sends nothing."""
    if port := wakeups.port(slot):
        probe = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
        address: tuple[str, int] | str = (_LOOPBACK, port)
        test: Callable[[Any], None] = probe.bind
    elif wakeups.sockets is not None:
        probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        address, test = f"{wakeups.sockets}/{slot}", probe.connect
    else:
        return False
    try:
        test(address)
    except OSError as error:
        return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    else:
        return not port  # who can bind the port owns it
    finally:
        probe.close()
