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
from typing import TYPE_CHECKING, Any

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
LAST = 1.0  # seconds that the last look may take, when the time of a waiter is over
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
        has the result and answers: a last look may take a second longer than `timeout`.
        """
        end = _end(timeout)
        done = threading.Lock()  # the cheapest to wake: a Condition's waiter waits for it, too
        done.acquire()
        found: list[bytes] = []

        def take(body: bytes) -> None:
            found.append(body)
            done.release()

        try:
            if self._enlist(id, take):
                _aside(timeout, self._watch, [id])
            if not found:
                with _waiting(queue):
                    self._wait(id, end, done, found)
        finally:
            self._forget(id, take)
        return found[0] if found else None

    def _wait(self, id: str, end: float, done: threading.Lock, found: Sequence[bytes]) -> None:
        for n, pause in enumerate(_pauses(end)):
            if n:
                self._check_aside()
            if self._acquire(done, found, pause):
                return
        _aside(LAST, self._look, (id,))

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
        end = _end(timeout)
        came: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
        takers = {id: partial(_put, came, id) for id in dict.fromkeys(ids)}
        left = set(takers)
        try:
            if unknown := [id for id, take in takers.items() if self._enlist(id, take)]:
                _aside(timeout, self._watch, unknown)
            for n, pause in enumerate(_pauses(end)):
                if n:
                    self._check_aside()
                yield from self._until(came, left, time.monotonic() + pause)
                if not left:
                    return
            _aside(LAST, self._look, list(left))
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

        loop, end = asyncio.get_running_loop(), _end(timeout)
        future: asyncio.Future[bytes] = loop.create_future()

        def take(body: bytes) -> None:
            with suppress(RuntimeError):  # its loop has been closed: nobody waits there any more
                loop.call_soon_threadsafe(_give, future, body)

        try:
            if self._enlist(id, take):
                watched = loop.run_in_executor(self._threads(), self._watch, [id])
                await _within(timeout, watched)
            self._open().resume()
            with _waiting(queue):
                for n, pause in enumerate(_pauses(end)):
                    if n and not future.done():
                        self._threads().submit(self._check)
                    if (await asyncio.wait([future], timeout=pause))[0]:
                        break
                else:
                    look = loop.run_in_executor(self._threads(), self._look, (id,))
                    await _within(LAST, look)
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

    def _watch(self, ids: Sequence[str]) -> None:
        self._open().watch(ids)

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

    def _check_aside(self) -> None:
        """As `_check`, in a thread of its own: what it finds is delivered."""
        if time.monotonic() >= self._checked + CHECK[0]:
            threading.Thread(target=self._check, name="fsdf-results", daemon=True).start()

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


def _end(timeout: float | None) -> float:
    """Return the instant of `time.monotonic()` at which a waiter's time is over."""
    return math.inf if timeout is None else time.monotonic() + timeout


def _aside(
    timeout: float | None, call: Callable[[Sequence[str]], object], ids: Sequence[str]
) -> None:
    """Call, and return when it has ended, or goes on alone after `timeout` seconds. Blocks.

    A thread that is not waited for, even at the end of the process: a server that hangs holds up
    neither.
    """
    if timeout is None:
        call(ids)
        return
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    aside = partial(_reported, ended, call, ids)
    threading.Thread(target=aside, name="fsdf-results", daemon=True).start()
    try:
        error = ended.get(timeout=timeout)
    except Empty:
        return
    if error is not None:
        raise error


def _reported(
    ended: SimpleQueue[BaseException | None],
    call: Callable[[Sequence[str]], object],
    ids: Sequence[str],
) -> None:
    try:
        call(ids)
    except BaseException as error:  # raised where it was asked for
        ended.put(error)
    else:
        ended.put(None)


async def _within(timeout: float | None, future: Future[Any]) -> None:
    """Wait for a future, at most so many seconds; it goes on."""
    import asyncio

    if (await asyncio.wait([future], timeout=timeout))[0]:
        future.result()


def _pauses(end: float) -> Iterator[float]:
    """Yield for how long to wait before each look into the store; the last one ends in time."""
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
