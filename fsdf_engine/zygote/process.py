"""The zygote's side: it waits, forks its like, and becomes a child."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import (
    sharedctypes,  # noqa: F401  what a child is sent, so that it need not import them
    spawn,
    synchronize,  # noqa: F401
)
from struct import Struct

from ..core.signals import give_back, leave_to_parent

__all__ = ["ANOTHER", "CHILD", "ID", "Sent", "forked", "serve"]
PDEATHSIG = 1  # of prctl(2)
ID = Struct("<q")  # of a process; below 0: the number of the error
CHILD, ANOTHER = b"c", b"a"  # what is asked for
MOST = 250  # descriptors of one request; the system's limit is 253
_received: list[int] = []  # a child's: the descriptors that it was sent


class Sent:
    """A descriptor that was sent to a child, by its place."""

    def __init__(self, place: int) -> None:
        self._place = place

    def detach(self) -> int:
        """Return the child's descriptor."""
        return _received[self._place]


def forked(call: Callable[[], int]) -> int:
    """Fork; return the id of the new process, which calls `call` and ends with what that returns.

    It ends hard, as those that `multiprocessing` forks do: above it are its parent's frames, and
    what is registered for the interpreter's end is its parent's, too.
    """
    if pid := os.fork():
        return pid
    code = 1
    try:
        code = call()
    except BaseException:  # there is nobody above to tell
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def serve(control: socket.socket, *others: socket.socket) -> int:
    """Do what is asked for until the worker closes its end, or dies. Blocks; closes `others`."""
    for other in others:
        other.close()
    leave_to_parent()
    os.setpgid(0, 0)  # Ctrl-C in a terminal is not for us
    _be_named("fsdf-zygote")
    control.recv(1)  # before that our parent may be the process that ends at once
    ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)  # others may hold the worker's end, too
    while len(sys._current_frames()) == 1:  # else somebody's hook of forks starts threads
        kind, descriptors, _, _ = socket.recv_fds(control, 1, MOST, socket.MSG_CMSG_CLOEXEC)
        if kind == CHILD:
            control.close()
            return _be_child(descriptors)
        if not kind:
            break
        [end] = descriptors
        with socket.socket(fileno=end) as theirs:
            control.send(ID.pack(_orphan(partial(serve, theirs, control))))
    return 0


def _orphan(call: Callable[[], int]) -> int:
    """Fork a process whose parent has ended when this returns its id, or the error below 0."""
    reader, writer = os.pipe()

    def begin() -> int:
        os.close(reader)
        os.close(writer)
        return call()

    def between() -> int:
        os.write(writer, ID.pack(_attempt(begin)))
        return 0

    between_id = _attempt(between)
    if between_id > 0:
        os.waitpid(between_id, 0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read(ID.size) or ID.pack(min(between_id, -errno.EAGAIN))
    return int(ID.unpack(answer)[0])


def _attempt(call: Callable[[], int]) -> int:
    try:
        return forked(call)
    except OSError as error:
        return -(error.errno or errno.EAGAIN)


def _be_child(descriptors: Sequence[int]) -> int:
    """Be the child that is described at the first descriptor; return its exit code."""
    _be_named("fsdf-child")
    give_back()  # signals are still held back
    pipe, *_received[:] = descriptors
    return int(spawn._main(pipe, os.dup(pipe)))


def _be_named(name: str) -> None:
    """Be told apart in a list of processes."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write(name)
