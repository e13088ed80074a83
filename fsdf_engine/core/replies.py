"""Results that this process waits for: one inbox, however many wait."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ..contracts import Inbox, Job, ResultStore
from ..errors import ResultDeadlock
from .context import current_job

__all__ = ["Replies"]
KEPT = 10_000  # results that came and that nobody has asked for yet


class Replies:
    """One per result store. `expect` before the message leaves, so that no reply is missed."""

    def __init__(self, store: ResultStore) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Callable[[bytes], object]]] = {}
        # Pushed here; with the body once it came.
        self._expected: OrderedDict[str, bytes | None] = OrderedDict()
        self._inbox: Inbox | None = None

    @property
    def address(self) -> str:
        """The address that messages carry as `extra.reply`; opens the inbox at the first use."""
        return self._open().address

    def _open(self) -> Inbox:
        if self._inbox is None:
            with self._lock:
                if self._inbox is None:
                    self._inbox = self.store.inbox(self._deliver, self._pending)
        return self._inbox

    def expect(self, ids: Sequence[str]) -> None:
        """Keep the results of these messages, which carry our address, until they are asked for."""
        with self._lock:
            self._expected.update(dict.fromkeys(ids))
            while len(self._expected) > KEPT:  # read again from the store if ever asked for
                self._expected.popitem(last=False)

    def wait(self, id: str, timeout: float | None, queue: str) -> bytes | None:
        """Block until the result of `id` is there; None after `timeout` seconds, b"" if closed.

        `queue` is where its message was pushed, "" if that is not known.
        """
        done = threading.Lock()  # the cheapest to wake: a Condition's waiter waits for it, too
        done.acquire()
        found: list[bytes] = []

        def take(body: bytes) -> None:
            found.append(body)
            done.release()

        try:
            if not self._register(id, take):
                with _waiting(queue):
                    done.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        finally:
            self._forget(id, take)
        return found[0] if found else None

    async def await_(self, id: str, timeout: float | None, queue: str) -> bytes | None:
        """As `wait`, without blocking the loop."""
        import asyncio
        from concurrent.futures import Future

        future: Future[bytes] = Future()

        def take(body: bytes) -> None:
            if future.set_running_or_notify_cancel():  # else its time is over
                future.set_result(body)

        try:
            register = asyncio.get_running_loop().run_in_executor
            if await register(None, self._register, id, take):
                return future.result()
            with _waiting(queue):
                return await asyncio.wait_for(asyncio.wrap_future(future), timeout)
        except asyncio.TimeoutError:
            return None
        finally:
            self._forget(id, take)

    def _register(self, id: str, take: Callable[[bytes], object]) -> bool:
        """Call `take` once, when the result comes; True if it has come already."""
        inbox = self._open()
        with self._lock:
            pushed_here = id in self._expected
            body = self._expected.pop(id, None)
            if body is None:
                self._waiting.setdefault(id, []).append(take)
        if body is not None:
            take(body)
        elif not pushed_here:
            inbox.watch([id])
        return body is not None

    def _forget(self, id: str, take: Callable[[bytes], object]) -> None:
        with self._lock:
            takers = self._waiting.get(id, [])
            if take in takers:
                takers.remove(take)
                if not takers:
                    del self._waiting[id]

    def _deliver(self, id: str, body: bytes) -> None:
        with self._lock:
            takers = self._waiting.pop(id, ())
            if not takers and id in self._expected:
                self._expected[id] = body
        for take in takers:
            take(body)

    def _pending(self) -> Sequence[str]:
        with self._lock:
            return [*self._waiting, *(id for id, body in self._expected.items() if body is None)]

    def close(self) -> None:
        """End the inbox; who still waits is given an empty body."""
        if self._inbox is not None:
            self._inbox.close()
        for id in list(self._waiting):
            self._deliver(id, b"")


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
