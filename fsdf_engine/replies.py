"""Results that this process waits for: one inbox, however many wait."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from .contracts import Inbox, Job, ResultStore
from .core.context import current_job
from .errors import FsdfError, ResultDeadlock

if TYPE_CHECKING:
    from asyncio import Future
    from concurrent.futures import Executor

__all__ = ["Replies"]
KEPT = 10_000  # messages that were pushed, and results that came, that nobody has asked for yet
KEPT_BYTES = 16 << 20  # of such results
KEPT_FOR = 60.0  # seconds; what is dropped is read from the store if it is ever asked for
CHECK = (2.0, 15.0)  # seconds: a waiter's first look into the store, and the longest between two
_PUBLISHED = re.compile(rb'\{"task_id":"[^"\\]*","publish_time":(\d+(?:\.\d+)?)')


class Replies:
    """One per store and layout. `expect` before the message leaves, so that no reply is missed."""

    def __init__(self, store: ResultStore, layout: str = "") -> None:
        self.store, self._layout = store, layout
        self._lock = threading.Lock()  # guards the next four
        self._waiting: dict[str, list[Callable[[bytes], object]]] = {}
        self._expected: OrderedDict[str, float] = OrderedDict()  # pushed here, when
        self._came: OrderedDict[str, tuple[float, bytes]] = OrderedDict()  # of these, when
        self._bytes = 0
        self._inbox: Inbox | None = None
        self._looking, self._sought = threading.Lock(), set[str]()
        self._checked = 0.0
        self._executor: Executor | None = None

    @property
    def address(self) -> str:
        """The address that messages carry as `extra.reply`; opens the inbox at the first use."""
        return self._open().address

    def _open(self) -> Inbox:
        if self._inbox is None:
            with self._lock:
                if self._inbox is None:
                    self._inbox = self.store.inbox(
                        self._deliver, self._pending, layout=self._layout
                    )
        return self._inbox

    def expect(self, ids: Sequence[str], published: float) -> None:
        """Keep the results of these messages, which carry our address, until they are asked for.

        `published` is their `publish_time`, or that of the first of them.
        """
        with self._lock:
            if self._came:
                self._expire(ids)
            self._expected.update(dict.fromkeys(ids, published))
            while len(self._expected) > KEPT:
                self._expected.popitem(last=False)

    def _expire(self, ids: Sequence[str]) -> None:
        """Drop what came long ago, and what came for these ids before. Under the lock."""
        for id in ids:
            self._drop(id)
        old = time.monotonic() - KEPT_FOR
        while self._came and self._came[id := next(iter(self._came))][0] < old:
            self._drop(id)

    def wait(self, id: str, timeout: float | None, queue: str) -> bytes | None:
        """Block until the result of `id` is there; None after `timeout` seconds, b"" if closed.

        `queue` is where its message was pushed, "" if that is not known. Never None while the store
        has the result: where it does not answer at once, that takes longer than `timeout`.
        """
        done = threading.Lock()  # the cheapest to wake: a Condition's waiter waits for it, too
        done.acquire()
        found: list[bytes] = []

        def take(body: bytes) -> None:
            found.append(body)
            done.release()

        try:
            if self._enlist(id, take):
                self._open().watch([id])
            if not found:
                with _waiting(queue):
                    self._wait(id, timeout, done, found)
        finally:
            self._forget(id, take)
        return found[0] if found else None

    def _wait(
        self, id: str, timeout: float | None, done: threading.Lock, found: Sequence[bytes]
    ) -> None:
        for n, pause in enumerate(_pauses(timeout)):
            if n:
                self._check()
            if self._acquire(done, found, pause):
                return
        self._look((id,))

    def _acquire(self, done: threading.Lock, found: Sequence[bytes], timeout: float) -> bool:
        inbox = self._open()
        if len(self._waiting) > 1 or current_job.get(None) is not None:  # a run may be interrupted
            inbox.resume()
            return done.acquire(timeout=timeout)
        try:
            return inbox.attend(done, found, timeout)
        finally:
            if self._waiting:
                inbox.resume()

    def each(self, ids: Sequence[str], timeout: float | None) -> Iterator[tuple[str, bytes]]:
        """Yield (id, result) of each as it comes, for `timeout` seconds at most. Blocks.

        The result is b"" if we are closed. What the store has is yielded in any case, as by `wait`.
        """
        came: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
        takers = {id: partial(_put, came, id) for id in dict.fromkeys(ids)}
        left = set(takers)
        try:
            if unknown := [id for id, take in takers.items() if self._enlist(id, take)]:
                self._open().watch(unknown)
            for n, pause in enumerate(_pauses(timeout)):
                if n:
                    self._check()
                yield from self._until(came, left, time.monotonic() + pause)
                if not left:
                    return
            self._look(list(left))
            yield from self._until(came, left, 0.0)
        finally:
            for id, take in takers.items():
                self._forget(id, take)

    def _until(
        self, came: SimpleQueue[tuple[str, bytes]], left: set[str], end: float
    ) -> Iterator[tuple[str, bytes]]:
        """Yield what comes until an instant of `time.monotonic()`."""
        while left:
            self._open().resume()
            try:
                id, body = came.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                return
            left.discard(id)
            yield id, body

    async def await_(self, id: str, timeout: float | None, queue: str) -> bytes | None:
        """As `wait`, without blocking the loop, and without its threads: they may all be busy."""
        import asyncio

        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()

        def take(body: bytes) -> None:
            with suppress(RuntimeError):  # its loop has been closed: nobody waits there any more
                loop.call_soon_threadsafe(_give, future, body)

        try:
            if self._enlist(id, take):
                await loop.run_in_executor(self._threads(), self._watch, id)
            self._open().resume()
            with _waiting(queue):
                for n, pause in enumerate(_pauses(timeout)):
                    if n and not future.done():
                        self._threads().submit(self._check)
                    if (await asyncio.wait([future], timeout=pause))[0]:
                        break
                else:
                    await loop.run_in_executor(self._threads(), self._look, (id,))
            return future.result() if future.done() else None
        finally:
            self._forget(id, take)

    def _threads(self) -> Executor:
        """Our own few threads, for what blocks where a loop waits."""
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            with self._lock:
                self._executor = self._executor or ThreadPoolExecutor(2, "fsdf-results")
        return self._executor

    def _watch(self, id: str) -> None:
        self._open().watch([id])

    def _enlist(self, id: str, take: Callable[[bytes], object]) -> bool:
        """Call `take` once, when the result comes, or now; True if the inbox must be told of it."""
        with self._lock:
            if (body := self._drop(id)) is None:
                self._waiting.setdefault(id, []).append(take)
                return id not in self._expected
        take(body)
        return False

    def _forget(self, id: str, take: Callable[[bytes], object]) -> None:
        with self._lock:
            takers = self._waiting.get(id, [])
            if take in takers:
                takers.remove(take)
                if not takers:
                    del self._waiting[id]

    def _deliver(self, id: str, body: bytes) -> None:
        if id not in self._expected and id not in self._waiting:
            return  # who asks for it from now on finds it in the store
        with self._lock:
            if pushed_here := (since := self._expected.get(id)) is not None:
                if _is_older(body, since):  # of an earlier message that had this id
                    return
                del self._expected[id]
            takers = self._waiting.pop(id, ())
            if pushed_here and not takers:
                self._keep(id, body)
        for take in takers:
            take(body)

    def _keep(self, id: str, body: bytes) -> None:
        """Keep what nobody has asked for yet, within bounds. Under the lock."""
        self._came[id] = time.monotonic(), body
        self._bytes += len(body)
        while self._bytes > KEPT_BYTES or len(self._came) > KEPT:
            self._drop(next(iter(self._came)))

    def _drop(self, id: str) -> bytes | None:
        _, body = self._came.pop(id, (0.0, None))
        self._bytes -= len(body or b"")
        return body

    def _check(self) -> None:
        """Look for all that is waited for; one look for all who ask at about the same time."""
        if (now := time.monotonic()) >= self._checked + CHECK[0]:
            self._checked = now
            with self._lock:
                ids = list(self._waiting)
            self._look(ids)

    def _look(self, ids: Sequence[str]) -> None:
        """Deliver what the store has of these, with one read for all who look meanwhile. Blocks."""
        with self._lock:
            self._sought.update(ids)
        with self._looking:
            with self._lock:
                wanted, self._sought = list(self._sought), set()
            found: Mapping[str, bytes] = {}
            for _ in range(2 if wanted else 0):  # a connection that died unnoticed fails once
                with suppress(FsdfError):
                    found = self.store.read(wanted, final=True, layout=self._layout)
                    break
            unheard = not self._expected.keys().isdisjoint(found)
            for id, body in found.items():
                self._deliver(id, body)
        if unheard:
            self._open().doubt()

    def _pending(self) -> Sequence[str]:
        with self._lock:
            return [*{**self._waiting, **self._expected}]

    def close(self) -> None:
        """End the inbox; who still waits is given an empty body."""
        if self._inbox is not None:
            self._inbox.close()
        for id in list(self._waiting):
            self._deliver(id, b"")
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)


def _pauses(timeout: float | None) -> Iterator[float]:
    """Yield for how long to wait before each look into the store; the last one ends in time."""
    end = math.inf if timeout is None else time.monotonic() + timeout
    pause, longest = CHECK
    while (left := end - time.monotonic()) > pause:
        yield pause
        pause = min(2 * pause, longest)
    yield max(0.0, left)


def _put(came: SimpleQueue[tuple[str, bytes]], id: str, body: bytes) -> None:
    came.put((id, body))


def _is_older(body: bytes, instant: float) -> bool:
    """Say whether a result is of a message that was published before."""
    found = _PUBLISHED.match(body)
    return found is not None and float(found[1]) < instant


def _give(future: Future[bytes], body: bytes) -> None:
    if not future.done():
        future.set_result(body)


_by_owner: defaultdict[int, set[Job]] = defaultdict(set)
_guard = threading.Lock()


@contextmanager
def _waiting(queue: str) -> Iterator[None]:
    """Mark a run that waits for its own queue; the last free slot of it must not wait, too."""
    if (job := current_job.get(None)) is None or job.plan.queue != queue:
        yield
        return
    waiting, size = _by_owner[id(job.owner)], getattr(job.owner, "slots", 0)
    with _guard:
        if size and len(waiting) + 1 >= size:
            raise ResultDeadlock(
                f"all {size} slots of queue {job.plan.queue!r} would wait for results, and"
                " none is left to produce them; give the tasks that wait a queue of their own"
            )
        waiting.add(job)
    try:
        yield
    finally:
        with _guard:
            waiting.discard(job)
