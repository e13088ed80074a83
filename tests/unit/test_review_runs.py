"""Runs, publishers and processes: rare moments that once broke the core."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest
from doubles import bodies
from helpers import BOUND, until

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Outgoing
from fsdf_engine.core.context import current_job
from fsdf_engine.core.publisher import Publisher
from fsdf_engine.errors import PublishError, ResultError, Retry, Unavailable
from fsdf_engine.replies import Replies
from fsdf_engine.result import AsyncResult
from fsdf_engine.stores.memory import MemoryStore


def settled(handle, count):
    """Wait for so many ends; what waited long for a slot was given back, which is one, too."""
    outbox = handle.consumer.outbox

    def done():
        parts = outbox.broker.size(handle.queue)
        return outbox.settled >= count and not handle.consumer.held() and not parts.waiting

    until(done)


def test_a_retry_that_waits_in_place_has_left_its_deadline_behind(start):
    broker, seen, waits = MemoryBroker(), [], threading.Event()

    def fn(n):
        job = current_job.get()
        seen.append(job.attempt)
        if len(seen) == 1:
            raise Retry(delay=0.5)

    broker.publish(bodies(1))
    handle = start(broker, fn, spec={"timeout": 0.3})
    settled(handle, 1)
    waits.set()
    assert seen == [0, 1]
    assert broker.size("q") == (0, 0, 0, 0)


def test_a_run_past_its_deadline_is_not_tried_again(start):
    broker, seen, ended = MemoryBroker(), [], threading.Event()

    def fn(n):
        seen.append(n)
        ended.wait(BOUND)
        raise ValueError("what the code makes of its deadline")

    broker.publish(bodies(1))
    handle = start(broker, fn, spec={"timeout": 0.05, "kill": False})
    settled(handle, 1)
    ended.set()
    until(lambda: handle.pool.abandoned() == 0)
    assert seen == [0]


class Sender(MemoryBroker):
    """Its first publish waits for `others` to queue up behind it; its second raises `error`."""

    def __init__(self, error):
        super().__init__()
        self.error, self.calls, self.gate = error, 0, threading.Event()

    def publish(self, batch):
        self.calls += 1
        if self.calls == 1:
            self.gate.wait(BOUND)
        elif self.calls == 2:
            raise self.error
        super().publish(batch)


def errors_of(publisher, broker, batches):
    """Return what each of several concurrent senders gets, the first one's left out."""
    got = {}

    def send(n, batch):
        try:
            publisher.send(batch)
        except BaseException as error:
            got[n] = error

    def one(n, batch):
        thread = threading.Thread(target=send, args=(n, batch))
        thread.start()
        return thread

    threads = [one(-1, bodies(1, "first"))]
    until(lambda: broker.calls == 1)
    threads += [one(n, batch) for n, batch in enumerate(batches)]
    until(lambda: len(publisher._waiting) == len(batches))
    broker.gate.set()
    for thread in threads:
        thread.join(BOUND)
    return got


def test_an_interrupt_of_the_sender_is_not_raised_in_the_others():
    broker = Sender(KeyboardInterrupt())
    got = errors_of(Publisher(broker), broker, [bodies(1) for _ in range(3)])
    kinds = sorted(type(error).__name__ for error in got.values())
    assert kinds == ["KeyboardInterrupt", "PublishError", "PublishError"]


def test_a_message_that_cannot_be_written_fails_its_own_sender_only():
    class Picky(Sender):
        def publish(self, batch):
            if [one.id for one in batch] == ["odd"]:
                raise TypeError("odd")
            super().publish(batch)

    broker = Picky(TypeError("odd"))
    batches = [[Outgoing("q", id, b"{}")] for id in ("even", "odd", "even, too")]
    got = errors_of(Publisher(broker), broker, batches)
    assert {n: type(error) for n, error in got.items()} == {1: TypeError}
    assert broker.size("q").waiting == 2


def test_who_waits_for_a_result_learns_that_the_engine_closes():
    replies = Replies(MemoryStore())
    result, got = AsyncResult("never", replies), []

    def wait():
        try:
            result.get(BOUND)
        except ResultError as error:
            got.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: replies._waiting)
    replies.close()
    thread.join(BOUND)
    assert got == ["the engine was closed while message never was waited for"]


def test_a_message_taken_by_a_sender_that_died_is_not_told_as_stored():
    broker = MemoryBroker()
    publisher = Publisher(broker)
    publisher._sending.acquire()
    got = []

    def send():
        try:
            publisher.send(bodies(1))
        except PublishError as error:
            got.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    until(lambda: len(publisher._waiting) == 1)
    publisher._waiting.clear()  # taken, and then the sender's thread was interrupted
    publisher._sending.release()
    thread.join(BOUND)
    assert got


def test_a_forked_child_does_not_wait_for_its_parents_consumers():
    code = """
import os, sys
from fsdf_engine.core.exit import hold_exit
release = hold_exit()
pid = os.fork()
if pid == 0:
    sys.exit(7)
import signal
signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
signal.alarm(5)
_, status = os.waitpid(pid, 0)
release()
sys.exit(os.waitstatus_to_exitcode(status) != 7)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=BOUND, check=False).returncode == 0


def test_a_message_that_names_a_task_is_never_run_by_another_one(start):
    broker, seen = MemoryBroker(), []
    broker.publish([
        Outgoing("q", "", b'{"n":1,"extra":{"task":"charge","task_id":"1"}}'),
        Outgoing("q", "", b'{"n":2}'),
    ])  # fmt: skip
    start(broker, lambda n: seen.append(n))
    until(lambda: broker.size("q") == (0, 0, 0, 1))
    assert seen == [2]
    assert "no task named 'charge'" in broker.dead_letters("q")[0].reason


@pytest.mark.parametrize("time", ["nan", "inf", '{"__type__":"decimal","__value__":"NaN"}'])
def test_a_message_without_an_age_is_invalid(start, time):
    broker = MemoryBroker()
    told = time if time.startswith("{") else f'"{time}"'
    body = '{"n":1,"extra":{"task_id":"1","publish_time":' + told + "}}"
    broker.publish([Outgoing("q", "", body.encode())])
    start(broker, lambda n: None)
    until(lambda: broker.size("q") == (0, 0, 0, 1))
    assert "publish_time" in broker.dead_letters("q")[0].reason


def test_a_push_in_the_middle_of_another_of_the_same_thread_is_an_error_and_no_deadlock():
    """As a signal handler or a finalizer may do."""
    refused = []

    class Interrupted(MemoryBroker):
        def publish(self, batch):
            if batch[0].id == "0":
                try:
                    publisher.publish(bodies(2)[1:])
                except Unavailable as error:
                    refused.append(str(error))
            super().publish(batch)

    broker = Interrupted()
    publisher = Publisher(broker)
    publisher.publish(bodies(1))
    publisher.publish(bodies(2)[1:])
    assert "nothing was sent" in refused[0]
    assert broker.size("q").waiting == 2


def test_a_push_that_nobody_waits_for_any_more_is_not_sent_later():
    go, entered = threading.Event(), threading.Event()

    class Slow(MemoryBroker):
        def publish(self, batch):
            entered.set()
            assert go.wait(BOUND)
            super().publish(batch)

    broker = Slow()
    publisher = Publisher(broker)

    async def main():
        first = asyncio.create_task(publisher.apublish(bodies(1)))
        await asyncio.to_thread(entered.wait, BOUND)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(publisher.apublish(bodies(2)[1:]), 0.05)
        go.set()
        await first

    asyncio.run(main())
    publisher.publish(bodies(3)[2:])
    assert sorted(e.body for e in broker.subscribe("q", lease=1.0).fetch(9, 1 << 20)) == [
        each.body for each in (bodies(1)[0], bodies(3)[2])
    ]
