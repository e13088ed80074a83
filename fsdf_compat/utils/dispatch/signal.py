"""A signal: receivers are called with what a sender tells."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import wraps
from typing import Any

from kombu.utils.functional import retry_over_time

from ...exceptions import CDeprecationWarning
from ...local import PromiseProxy, Proxy
from ..functional import fun_accepts_kwargs
from ..log import get_logger
from ..time import humanize_seconds

__all__ = ["Signal"]

logger = get_logger("celery.utils.dispatch.signal")

RECEIVER_RETRY_ERROR = "Could not process signal receiver %(receiver)s. Retrying %(when)s..."


def _identity(target: Any) -> Hashable:
    if isinstance(target, Proxy):
        target = target._get_current_object()
    if isinstance(target, (bytes, str)):  # equal names are one sender
        return target
    if hasattr(target, "__func__"):  # a method is made anew at each look
        return id(getattr(target, "__self__", None)), id(target.__func__)
    return id(target)


_ANY = _identity(None)


def _key(receiver: Any, sender: Any, dispatch_uid: Hashable) -> tuple[Hashable, Hashable]:
    uid = dispatch_uid or getattr(receiver, "_dispatch_uid", None)
    return uid or _identity(receiver), _identity(sender)


def _repeated(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Return a receiver that calls `fun` until it does not raise."""

    def tell(error: Exception, intervals: Iterator[float], retries: int) -> float:
        interval = next(intervals)
        when = humanize_seconds(interval, "in", " ")
        logger.error(RECEIVER_RETRY_ERROR, {"receiver": fun, "when": when})
        return interval

    @wraps(fun)
    def receiver(*args: Any, **kwargs: Any) -> Any:
        return retry_over_time(fun, Exception, args, kwargs, tell)

    return receiver


class Signal:
    """Something that happens. `receivers` is empty as long as nobody wants to know.

    Thread-safe. Receivers are called in the sender's thread, in the order of their connection.
    """

    def __init__(
        self,
        providing_args: Iterable[str] | None = None,
        use_caching: bool = False,
        name: str | None = None,
    ) -> None:
        # (identities of receiver and sender) with the receiver, or a weak reference to it.
        self.receivers: list[tuple[tuple[Hashable, Hashable], Any]] = []
        self.providing_args = set(providing_args or ())
        self.lock = threading.Lock()
        self.use_caching = use_caching
        self.name = name
        # Filled by `send`, emptied by each change; senders are not kept alive by it.
        self.sender_receivers_cache: Any = weakref.WeakKeyDictionary() if use_caching else {}
        self._dead_receivers = False

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Call a receiver at each `send`: `connect(fun, ...)`, or a decorator with or without
        arguments.

        `sender`: only if it is this one. `weak`: do not keep the receiver alive. `dispatch_uid`:
        connect one receiver of this id only. `retry`: call it until it does not raise.

        Raises: ValueError: the receiver takes no `**kwargs`.
        """
        if args and callable(args[0]):
            return self._connect_with(*args[1:], **kwargs)(args[0])
        return self._connect_with(*args, **kwargs)

    def _connect_with(
        self, sender: Any = None, weak: bool = True, dispatch_uid: Any = None, retry: bool = False
    ) -> Callable[[Any], Any]:
        def connect(fun: Any) -> Any:
            if not retry:
                self._connect_signal(fun, sender, weak, dispatch_uid)
                return fun
            receiver = _repeated(fun)
            # It is found again by the function that the user knows.
            receiver._dispatch_uid = dispatch_uid or _identity(fun)  # type: ignore[attr-defined]
            self._connect_signal(receiver, sender, False, receiver._dispatch_uid)  # type: ignore[attr-defined]
            return receiver

        return connect

    def _connect_signal(self, receiver: Any, sender: Any, weak: bool, dispatch_uid: Any) -> Any:
        if not callable(receiver):
            raise TypeError(f"a receiver is called; {receiver!r} cannot be")
        if not fun_accepts_kwargs(receiver):
            raise ValueError("Signal receiver must accept keyword arguments.")
        if isinstance(sender, PromiseProxy):
            # A task that its app has not made yet.
            sender.__then__(self._connect_proxy, receiver, sender, weak, dispatch_uid)
            return receiver
        key = _key(receiver, sender, dispatch_uid)
        kept = self._weakly(receiver) if weak else receiver
        with self.lock:
            self._clear_dead_receivers()
            if all(known != key for known, _ in self.receivers):
                self.receivers.append((key, kept))
            self.sender_receivers_cache.clear()
        return kept

    def _connect_proxy(self, fun: Any, sender: Any, weak: bool, dispatch_uid: Any) -> Any:
        current = sender._get_current_object()
        return self._connect_signal(fun, current, weak, dispatch_uid)

    def _weakly(self, receiver: Any) -> Any:
        if hasattr(receiver, "__self__") and hasattr(receiver, "__func__"):
            weakref.finalize(receiver.__self__, self._remove_receiver)
            return weakref.WeakMethod(receiver)
        weakref.finalize(receiver, self._remove_receiver)
        return weakref.ref(receiver)

    def disconnect(
        self,
        receiver: Any = None,
        sender: Any = None,
        weak: bool | None = None,
        dispatch_uid: Any = None,
    ) -> bool:
        """Undo `connect`; tell if there was anything to undo."""
        if weak is not None:
            warnings.warn(
                "Passing `weak` to disconnect has no effect.", CDeprecationWarning, stacklevel=2
            )
        key = _key(receiver, sender, dispatch_uid)
        with self.lock:
            self._clear_dead_receivers()
            places = [i for i, (known, _) in enumerate(self.receivers) if known == key]
            if places:
                del self.receivers[places[0]]
            self.sender_receivers_cache.clear()
        return bool(places)

    def has_listeners(self, sender: Any = None) -> bool:
        """Tell if anybody would be called."""
        return bool(self._live_receivers(sender))

    def is_heard(self) -> bool:
        """Tell if a receiver has anything to do now: one whose object `rests()` has not."""
        for _, kept in self.receivers:
            receiver = kept() if isinstance(kept, weakref.ReferenceType) else kept
            if receiver is not None:
                rests = getattr(getattr(receiver, "__self__", None), "rests", None)
                if rests is None or not rests():
                    return True
        return False

    def send(self, sender: Any, **named: Any) -> list[tuple[Any, Any]]:
        """Call the receivers; return (receiver, what it returned or raised) of each."""
        answers: list[tuple[Any, Any]] = []
        if not self.receivers:
            return answers
        for receiver in self._live_receivers(sender):
            try:
                answer = receiver(signal=self, sender=sender, **named)
            except Exception as error:  # the receiver's, and no matter of the sender's
                logger.exception("Signal handler %r raised: %r", receiver, error)
                answer = error
            answers.append((receiver, answer))
        return answers

    send_robust = send

    def _clear_dead_receivers(self) -> None:
        # The lock is held.
        if self._dead_receivers:
            self._dead_receivers = False
            self.receivers[:] = [entry for entry in self.receivers if _alive(entry[1]) is not None]

    def _live_receivers(self, sender: Any) -> list[Any]:
        kept = None
        if self.use_caching and not self._dead_receivers:
            kept = self.sender_receivers_cache.get(sender)
        if kept is None:
            with self.lock:
                self._clear_dead_receivers()
                wanted = (_ANY, _identity(sender))
                kept = [receiver for (_, of), receiver in self.receivers if of in wanted]
                if self.use_caching:
                    self.sender_receivers_cache[sender] = kept
        return [alive for alive in map(_alive, kept) if alive is not None]

    def _remove_receiver(self, receiver: Any = None) -> None:
        # Called in the middle of anything, also while the lock is held: only take note.
        self._dead_receivers = True

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name} providing_args={self.providing_args!r}>"


def _alive(receiver: Any) -> Any:
    return receiver() if isinstance(receiver, weakref.ReferenceType) else receiver
