"""What a user sees of a task, whatever broker and pool it has: run over the matrix of both.

The plain run covers threads, asyncio, one thread and processes; gevent and eventlet run the same
tests in a patched process (see tests/green.py).
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter

import pytest
from helpers import BOUND, until

from fsdf_engine import (
    Reject,
    Requeue,
    Retry,
    SoftTimeLimit,
    TaskFailed,
    current,
    default_engine,
    task_deco,
)
from fsdf_engine.contracts import Capability, QueueSize
from fsdf_engine.registry import brokers

BROKERS = [
    "memory",
    "sqlite",
    "redis",
    "redis_ack",
    "redis_stream",
    "redis_brpoplpush",
    "rabbitmq_amqpstorm",
    "rabbitmq_pika",
]


class Place:
    """One broker in one mode, with queues of the test's own."""

    def __init__(self, broker, mode):
        self.broker, self.mode = broker, mode
        self.log, self.lock = [], threading.Lock()

    def task(self, fn, queue="e2e", **options):
        """Declare `fn(log, ...)`; a coroutine function where the mode wants one."""
        log = self.log
        if self.mode == "asyncio":

            async def run(n, x=0):
                return fn(log, n, x)
        else:

            def run(n, x=0):
                return fn(log, n, x)

        options = {"broker_kind": self.broker, "concurrent_mode": self.mode, **options}
        options.setdefault("concurrent_num", 1 if self.mode == "inline" else 8)
        return task_deco(queue, **options)(run)

    def has(self, capability):
        return capability in default_engine().broker(self.broker).capabilities

    def sized(self, *sizes):
        """Return what the sizes are where so many messages are in each part."""
        known = QueueSize(*sizes)
        return known if self.has(Capability.SIZE_LEASED) else known._replace(leased=-1)


class EndToEnd:
    """Subclass with a `place` fixture."""

    def test_every_message_runs_once_and_nothing_is_left(self, place):
        task = place.task(lambda log, n, x: log.append(n))
        task.push_many((n,) for n in range(3000))
        handle = task.consume()
        assert task.join(BOUND)
        assert Counter(place.log) == Counter(range(3000))
        assert task.size() == place.sized(0, 0, 0, 0)
        assert handle.consumer.most_held <= handle.consumer.hard

    def test_push_wakes_an_idle_consumer(self, place):
        task = place.task(lambda log, n, x: log.append(n))
        task.consume()
        for n in range(20):
            task.push(n)
            until(lambda n=n: len(place.log) == n + 1)

    def test_results_and_failures_travel_back(self, place):
        def work(log, n, x):
            if n == 13:
                raise ValueError("thirteen", n)
            if n == 14:
                raise Reject("not me")
            return {"n": n, "text": "ж漢"}

        task = place.task(work, is_using_rpc_mode=True, max_retry_times=0)
        results = task.push_many((n,) for n in range(12, 15))
        task.consume()
        assert results[0].get(BOUND) == {"n": 12, "text": "ж漢"}
        with pytest.raises(TaskFailed) as failed:
            results[1].get(BOUND)
        assert failed.value.kind == "builtins.ValueError"
        assert "in work" in failed.value.traceback
        assert isinstance(failed.value.__cause__, ValueError)
        with pytest.raises(TaskFailed, match="not me") as rejected:
            results[2].get(BOUND)
        assert rejected.value.status == "rejected"
        assert [r.status for r in results] == ["succeeded", "failed", "rejected"]
        until(lambda: task.size().dead == 2)
        assert {letter.reason for letter in task.dead_letters()} == {
            "ValueError: ('thirteen', 13)",
            "rejected: not me",
        }

    def test_retries_in_place_and_through_the_broker_are_counted(self, place):
        def work(log, n, x):
            log.append((n, current.attempt))
            if current.attempt < n:
                raise Retry(delay=1.01 if n == 1 else 0.0)

        task = place.task(work, max_retry_times=2)
        task.push_many((n,) for n in range(4))
        task.consume()
        assert task.join(BOUND)
        runs = {n: sorted(a for m, a in place.log if m == n) for n in range(4)}
        assert runs == {0: [0], 1: [0, 1], 2: [0, 1, 2], 3: [0, 1, 2]}
        assert task.size().dead == 1

    @pytest.mark.parametrize("ack", ["late", "early"])
    def test_every_attempt_gets_what_was_pushed(self, place, ack):
        def work(log, n, x):
            log.append((list(n), dict(x), list(current.headers["ids"])))
            n.append("sent")
            x.pop("token")
            current.headers["ids"].append(3)
            raise Retry(delay=1.01 if current.attempt == 1 and place.broker == "memory" else 0.0)

        task = place.task(work, max_retry_times=2, ack=ack)
        task.publish({"n": ["a"], "x": {"token": "t"}}, headers={"ids": [1, 2]})
        task.consume()
        assert task.join(BOUND)
        assert place.log == [(["a"], {"token": "t"}, [1, 2])] * 3

    def test_requeue_is_not_counted_and_comes_back_later(self, place):
        def work(log, n, x):
            log.append((time.monotonic(), current.attempt, current.task_id))
            if len(log) < 3:
                raise Requeue(delay=0.1)

        task = place.task(work, max_retry_times=0)
        task.push(1)
        task.consume()
        assert task.join(BOUND)
        until(lambda: len(place.log) == 3)
        assert [attempt for _, attempt, _ in place.log] == [0, 0, 0]
        assert len({id for *_, id in place.log}) == 1
        assert place.log[2][0] - place.log[0][0] >= 0.19

    def test_countdown_is_kept(self, place):
        if not place.has(Capability.DELAY):
            pytest.skip(f"{place.broker} has no DELAY")
        task = place.task(lambda log, n, x: log.append(time.time() - x))
        task.consume()
        task.publish({"n": 1, "x": time.time()}, countdown=0.3)
        until(lambda: place.log)
        assert 0.29 < place.log[0] < 5.0

    def test_bad_messages_become_dead_letters_and_the_next_one_runs(self, place):
        task = place.task(lambda log, n, x: log.append(n))
        engine = default_engine()
        from fsdf_engine.contracts import Outgoing

        bad = [b"nonsense", b"[1]", b"{}", b'{"n":1,"y":2}']
        engine.broker(place.broker).publish([Outgoing("e2e", "", body) for body in bad])
        task.push(7)
        task.consume()
        until(lambda: place.log == [7] and task.size() == place.sized(0, 0, 0, 4))
        assert all(letter.reason.startswith("invalid: ") for letter in task.dead_letters())
        assert task.replay() == 4
        until(lambda: task.size() == place.sized(0, 0, 0, 4))
        assert task.clear(["dead"]) == 4

    def test_large_and_foreign_messages_run(self, place):
        task = place.task(lambda log, n, x: log.append((len(n), x)))
        text = "ж" * 500_000
        task.push(text, 1)
        from fsdf_engine.contracts import Outgoing

        bare = json.dumps({"n": "four", "x": 2}).encode()
        default_engine().broker(place.broker).publish([Outgoing("e2e", "", bare)] * 2)
        task.consume()
        until(lambda: sorted(place.log) == [(4, 2), (4, 2), (500_000, 1)])

    def test_a_task_pushes_to_the_next_queue(self, place):
        second = place.task(lambda log, n, x: log.append((n, x)), queue="e2e.second")

        def first_step(log, n, x):
            second.push(n, x=n * 2)

        first = place.task(first_step, queue="e2e.first")
        first.push_many((n,) for n in range(100))
        second.consume()
        first.consume()
        until(lambda: len(place.log) == 100)
        assert sorted(place.log) == [(n, 2 * n) for n in range(100)]

    def test_stop_drains_runs_and_leaves_the_rest(self, place):
        gate = threading.Event()

        def work(log, n, x):
            log.append(n)
            gate.wait(0.001)

        task = place.task(work, concurrent_num=1)
        task.push_many((n,) for n in range(300))
        handle = task.consume()
        until(lambda: place.log)
        handle.stop()
        size = task.size()
        if place.has(Capability.LEASE):
            assert size == place.sized(300 - len(place.log), 0, 0, 0)
        else:
            assert size.waiting + len(place.log) == 300
        task.consume()
        assert task.join(BOUND)
        assert sorted(place.log) == list(range(300))

    def test_two_named_tasks_share_a_queue(self, place):
        one = place.task(lambda log, n, x: log.append(("one", n)), name="one")
        two = place.task(lambda log, n, x: log.append(("two", n)), name="two")
        for n in range(50):
            one.push(n)
            two.push(n)
        assert one.consume() is two.consume()
        assert one.join(BOUND)
        assert Counter(name for name, _ in place.log) == {"one": 50, "two": 50}

    def test_timeout_gives_timedout_and_frees_the_slot(self, place):
        blocked = threading.Event()

        if place.mode == "asyncio":

            async def run(n, x=0):
                if n == 0:
                    await asyncio.sleep(60)
                return n

            options = {"broker_kind": place.broker, "concurrent_mode": place.mode}
            task = task_deco(
                "e2e", **options, concurrent_num=1, function_timeout=0.2, is_using_rpc_mode=True
            )(run)
        else:

            def work(log, n, x):
                if n == 0:
                    blocked.wait(2.0)
                return n

            task = place.task(work, concurrent_num=1, function_timeout=0.2, is_using_rpc_mode=True)
        results = task.push_many([(0,), (1,)])
        task.consume()
        with pytest.raises(TaskFailed) as failed:
            results[0].get(BOUND)
        assert failed.value.status == "timedout"
        assert results[1].get(BOUND) == 1
        blocked.set()

    def test_then_of_a_group_runs_once_with_what_its_members_returned(self, place):
        def work(log, n, x):
            if n == 99 and current.attempt < 2:
                raise Retry
            if n < 0:
                raise ValueError("no")
            return [n, x]

        task = place.task(work, joins_groups=True, max_retry_times=2)
        then = place.task(lambda log, n, x: log.append(n) or len(n), "then", is_using_rpc_mode=True)
        good = [task.push_group([(n, g) for n in range(100)], then) for g in range(5)]
        bad = task.push_group([(n, 0) for n in range(-1, 3)], then)
        task.consume()
        then.consume()
        assert [result.get(BOUND) for result in good] == [100] * 5
        with pytest.raises(TaskFailed, match="member 0 of group .* failed: ValueError: no"):
            bad.get(BOUND)
        assert task.join(BOUND)
        assert sorted(place.log) == [[[n, g] for n in range(100)] for g in range(5)]
        until(lambda: then.size().dead == 1)

    def test_messages_have_limits_of_their_own(self, place):
        """Of a task without any; a run that catches its soft limit returns."""
        go = threading.Event()

        def work(n, x=0):
            try:
                while n == 0 and not go.wait(0.002):
                    pass
            except SoftTimeLimit:
                return "tidied", *current.limits
            return n

        async def awork(n, x=0):
            try:
                while n == 0 and not go.is_set():
                    await asyncio.sleep(0.002)
            except SoftTimeLimit:
                return "tidied", *current.limits
            return n

        options = {"broker_kind": place.broker, "concurrent_mode": place.mode}
        function = awork if place.mode == "asyncio" else work
        task = task_deco("e2e", **options, concurrent_num=1, is_using_rpc_mode=True)(function)
        soft = task.publish({"n": 0}, soft_time_limit=0.1)
        hard = task.publish({"n": 0}, function_timeout=0.2)
        plain = task.push(1)
        task.consume()
        assert soft.get(BOUND) == ["tidied", 0.1, 0]
        with pytest.raises(TaskFailed) as failed:
            hard.get(BOUND)
        assert failed.value.status == "timedout"
        assert plain.get(BOUND) == 1
        go.set()

    def test_qps_paces_the_starts(self, place):
        task = place.task(lambda log, n, x: log.append(time.monotonic()), qps=50)
        task.push_many((n,) for n in range(26))
        begun = time.monotonic()
        task.consume()
        until(lambda: len(place.log) == 26)
        assert place.log[-1] - begun >= 0.49


@pytest.fixture(params=[*BROKERS, "thin"])
def broker_name(request, monkeypatch):
    if request.param.startswith("rabbitmq"):
        monkeypatch.setenv("FSDF_RABBITMQ_URL", request.getfixturevalue("rabbitmq_url"))
    if request.param.startswith("redis"):
        monkeypatch.setenv("FSDF_REDIS_URL", request.getfixturevalue("redis_url"))
    if request.param == "thin":
        monkeypatch.setitem(brokers._table, "thin", "thin:NamedThinBroker")
        monkeypatch.setenv("FSDF_RESULT_STORE", "memory")
    return request.param


def one_process(mode):
    @pytest.fixture
    def place(self, broker_name):
        return Place(broker_name, mode)

    return place
