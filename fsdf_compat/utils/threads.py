"""Locals of threads and greenlets, and threads in the background."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import TIMEOUT_MAX as THREAD_TIMEOUT_MAX
from typing import Any

from ..local import Proxy, try_import

__all__ = [
    "bgThread", "Local", "LocalStack", "LocalManager", "get_ident", "default_socket_timeout",
    "bound_open_broker_sockets",
]  # fmt: skip

# Each thread has a greenlet of its own, so those tell both apart.
_greenlet = try_import("greenlet")
get_ident: Callable[[], Any] = _greenlet.getcurrent if _greenlet else threading.get_ident

logger = logging.getLogger("celery.utils.threads")

USE_FAST_LOCALS = os.environ.get("USE_FAST_LOCALS")


@contextmanager
def default_socket_timeout(timeout: float | None) -> Iterator[None]:
    """Give sockets that are made meanwhile this timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _open_broker_sockets(connection: Any) -> Iterator[Any]:
    # What is cached only: to ask a client or a transport for its connection would make one.
    for channel in list(getattr(connection.transport, "channels", None) or ()):
        made = getattr(channel, "__dict__", {})
        for name in ("client", "subclient"):
            yield getattr(getattr(made.get(name), "connection", None), "_sock", None)
    transport = getattr(connection._connection, "_transport", None)
    yield getattr(transport, "sock", None)


def bound_open_broker_sockets(connection: Any, timeout: float) -> None:
    """Give a kombu connection's sockets a timeout, so that its end does not wait for ever.

    Never raises: what is closed or unknown has nothing to wait for.
    """
    try:
        for sock in filter(None, _open_broker_sockets(connection)):
            with suppress(OSError):  # one that is closed
                sock.settimeout(timeout)
    except Exception:  # a library's objects at the end of their life
        logger.debug("sockets of %r cannot be found", connection, exc_info=True)


class bgThread(threading.Thread):
    """A thread that calls `body` until it is stopped.

    If `body` raises, the process is asked to end (SIGTERM): a worker ends what runs, and then
    itself.
    """

    def __init__(self, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(name=name or type(self).__name__, daemon=True)
        self.__is_shutdown = threading.Event()
        self.__is_stopped = threading.Event()

    def body(self) -> None:
        """Do one round; to be overridden."""
        raise NotImplementedError

    def on_crash(self, msg: str, *fmt: Any, **kwargs: Any) -> None:
        """Tell of an exception of `body`."""
        print(msg.format(*fmt), file=sys.stderr)
        traceback.print_exc(None, sys.stderr)

    def run(self) -> None:
        try:
            while not self.__is_shutdown.is_set():
                self.body()
        except Exception as error:
            self.on_crash("{0!r} crashed: {1!r}", self.name, error)
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            self._set_stopped()

    def _set_stopped(self) -> None:
        self.__is_stopped.set()

    def stop(self) -> None:
        """Wait for the round that runs, and for the thread's end."""
        self.__is_shutdown.set()
        self.__is_stopped.wait()
        if self.is_alive():
            self.join(THREAD_TIMEOUT_MAX)


def release_local(local: Any) -> None:
    """Forget what a Local or a stack holds in this context."""
    local.__release_local__()


class Local:
    """An object whose attributes are each context's own."""

    __slots__ = ("__ident_func__", "__storage__")

    def __init__(self) -> None:
        object.__setattr__(self, "__storage__", {})
        object.__setattr__(self, "__ident_func__", get_ident)

    def __iter__(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        return iter(self.__storage__.items())

    def __call__(self, proxy: str) -> Proxy:
        """Return a proxy of an attribute."""
        return Proxy(self, name=proxy)

    def _here(self) -> dict[str, Any]:
        return self.__storage__.get(self.__ident_func__(), {})

    def __release_local__(self) -> None:
        self.__storage__.pop(self.__ident_func__(), None)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._here()[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self.__storage__.setdefault(self.__ident_func__(), {})[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self._here()[name]
        except KeyError:
            raise AttributeError(name) from None


class _LocalStack:
    """A stack that each context has of its own. Called, it returns a proxy of the top."""

    def __init__(self) -> None:
        self._local = Local()

    def __release_local__(self) -> None:
        self._local.__release_local__()

    @property
    def __ident_func__(self) -> Any:
        return self._local.__ident_func__

    @__ident_func__.setter
    def __ident_func__(self, value: Any) -> None:
        object.__setattr__(self._local, "__ident_func__", value)

    def __call__(self) -> Proxy:
        def current() -> Any:
            if self.top is None:
                raise RuntimeError("object unbound")
            return self.top

        return Proxy(current)

    def push(self, obj: Any) -> list[Any]:
        """Put an object on top; return the stack."""
        stack = getattr(self._local, "stack", None)
        if stack is None:
            stack = self._local.stack = []
        stack.append(obj)
        return stack

    def pop(self) -> Any:
        """Take the top away; None if there is none."""
        stack = self.stack
        if not stack:
            return None
        if len(stack) == 1:  # a context that has ended is forgotten
            release_local(self._local)
        return stack.pop()

    __class_getitem__: Any = classmethod(types.GenericAlias)

    def __len__(self) -> int:
        return len(self.stack)

    @property
    def stack(self) -> list[Any]:
        """All, the top last."""
        return getattr(self._local, "stack", [])

    @property
    def top(self) -> Any:
        """The last that was pushed; None if there is none."""
        stack = self.stack
        return stack[-1] if stack else None


class LocalManager:
    """Releases several locals at once."""

    def __init__(self, locals: Any = None, ident_func: Callable[[], Any] | None = None) -> None:
        self.locals = [locals] if isinstance(locals, Local) else list(locals or ())
        self.ident_func = ident_func or get_ident
        for local in self.locals if ident_func else ():
            object.__setattr__(local, "__ident_func__", ident_func)

    def get_ident(self) -> Any:
        """Return what tells contexts apart."""
        return self.ident_func()

    def cleanup(self) -> None:
        """Release them in this context."""
        for local in self.locals:
            release_local(local)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} storages: {len(self.locals)}>"


class _FastLocalStack(threading.local):
    """A stack of each thread's own, where there are no greenlets."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[Any] = []
        self.push = self.stack.append
        self.pop = self.stack.pop

    @property
    def top(self) -> Any:
        return self.stack[-1] if self.stack else None

    __class_getitem__: Any = classmethod(types.GenericAlias)

    def __len__(self) -> int:
        return len(self.stack)


LocalStack: Any = _FastLocalStack if USE_FAST_LOCALS else _LocalStack
