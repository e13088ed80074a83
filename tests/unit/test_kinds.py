"""Plain functions and coroutine functions in one queue, each in slots of its own."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from helpers import BOUND, until

from fsdf_engine.contracts import Delivery, Job, Plan, Pool, PoolCapability
from fsdf_engine.core.kinds import Kinds
from fsdf_engine.engine import Engine
from fsdf_engine.errors import ConfigurationError
from fsdf_engine.pools.composite import CompositePool
from fsdf_engine.pools.coroutines import AsyncioPool
from fsdf_engine.pools.threads import ThreadPool


class Both:
    """An engine with a queue of both kinds; runs hold until `go`, or end at once without `hold`."""

    def __init__(self):
        self.engine = Engine({"BROKER_KIND": "memory"})
        self.go, self.hold, self.ran, self.threads = threading.Event(), set(), [], {}
        self.running = {"plain": 0, "coroutine": 0}

    def declare(self, queue="q", plain=2, coroutine=3, **options):
        def note(kind, n):
            self.threads.setdefault(kind, set()).add(threading.current_thread().name)
            self.running[kind] += 1
            self.ran.append((kind, n))

        def fn(n):
            note("plain", n)
            if "plain" in self.hold:
                self.go.wait(BOUND)

        async def afn(n):
            note("coroutine", n)
            while "coroutine" in self.hold and not self.go.is_set():
                await asyncio.sleep(0.005)

        made = [
            self.engine.task(fn, queue, name="plain", concurrent_num=plain, **options),
            self.engine.task(afn, queue, name="coroutine", concurrent_num=coroutine, **options),
        ]
        self.broker = self.engine.broker()
        return made


@pytest.fixture
def both():
    both = Both()
    yield both
    both.go.set()
    both.engine.close()


@pytest.mark.parametrize("ack", ["late", "early"])
@pytest.mark.parametrize("first", [0, 1])
def test_both_kinds_run_each_where_it_belongs(both, first, ack):
    tasks = both.declare(ack=ack)
    for n in range(100):
        tasks[n % 2].push(n)
    handle = tasks[first].consume()
    until(lambda: both.broker.size("q") == (0, 0, 0, 0) and len(both.ran) == 100)
    assert sorted(n for _, n in both.ran) == list(range(100))
    assert {kind for kind, n in both.ran if n % 2} == {"coroutine"}
    assert both.threads == {"plain": {"fsdf-slot"}, "coroutine": {"fsdf-loop"}}
    assert handle.pool.size == 2 + 3


@pytest.mark.parametrize("ack", ["late", "early"])
def test_each_kind_has_slots_of_its_own(both, ack):
    plain, coroutine = both.declare(ack=ack)
    both.hold = {"plain"}
    plain.push_many([(n,) for n in range(2)])
    coroutine.push_many([(n,) for n in range(50)])
    handle = plain.consume()
    until(lambda: both.running == {"plain": 2, "coroutine": 50})
    assert len(handle.pool.running()) == 2


def test_what_its_kind_has_no_room_for_goes_back_unstarted_and_is_not_fetched_again_and_again(both):
    plain, coroutine = both.declare(plain=1, prefetch=0)
    both.hold = {"plain"}
    plain.push_many([(n,) for n in range(20)])
    consumer = plain.consume().consumer
    until(lambda: both.running["plain"] == 1 and both.broker.size("q") == (19, 0, 1, 0))
    fetched = consumer.fetched
    assert fetched <= 2 * (1 + 3)
    coroutine.push(0)
    both.go.set()
    until(lambda: both.broker.size("q") == (0, 0, 0, 0))
    assert [n for kind, n in both.ran if kind == "plain"] == list(range(20))
    assert consumer.fetched - fetched <= 19 + 1 + 2 * 3  # once each, and a fetch at the end


def test_a_scarce_kind_does_not_limit_what_follows_it(both):
    plain, coroutine = both.declare(prefetch=0)
    both.hold = {"plain"}
    plain.push_many([(n,) for n in range(10)])
    consumer = plain.consume().consumer
    until(lambda: consumer._kinds.scarce)
    both.go.set()
    until(lambda: both.running["plain"] == 10)
    both.go.clear()
    both.hold = {"coroutine"}
    coroutine.push_many([(n,) for n in range(10)])
    until(lambda: both.running["coroutine"] == 3)
    assert consumer._kinds.scarce is None or consumer._kinds.scarce.plan.run is None


def test_limits_end_runs_of_both_kinds(both):
    tasks = both.declare(function_timeout=0.05, max_retry_times=0)
    both.hold = {"plain", "coroutine"}
    for task in tasks:
        task.push(1)
    tasks[0].consume()
    until(lambda: both.broker.size("q") == (0, 0, 0, 2))
    assert all(letter.reason.startswith("timedout") for letter in both.broker.dead_letters("q"))


def test_stop_gives_back_runs_of_both_kinds(both):
    tasks = both.declare(prefetch=0)
    both.hold = {"plain", "coroutine"}
    for task in tasks:
        task.push_many([(n,) for n in range(2)])
    handle = tasks[1].consume()
    until(lambda: both.running == {"plain": 2, "coroutine": 2})
    handle.pause()
    tasks[0].push(9)
    both.hold.discard("plain")
    handle.resume()
    stopping = threading.Thread(target=handle.stop, kwargs={"timeout": 0.05})
    stopping.start()
    stopping.join(BOUND)
    assert both.broker.size("q").leased <= 2  # plain ones that wait in C end later
    assert both.broker.size("q").waiting >= 3


def test_queues_of_both_kinds_share_a_pool(both):
    pool = both.engine.new_pool("threads", 2, coroutines=3)
    queues = [both.declare(name, specify_concurrent_pool=pool) for name in ("a", "b")]
    for tasks in queues:
        for task in tasks:
            task.push_many([(n,) for n in range(100)])
    handles = [tasks[0].consume() for tasks in queues]
    until(lambda: both.running == {"plain": 200, "coroutine": 200})
    assert [handle.pool for handle in handles] == [pool, pool]
    both.engine.stop()
    assert not pool.close(BOUND)


def test_a_kind_that_comes_when_the_pool_is_made_is_refused(both):
    engine = both.engine
    engine.task(lambda n: None, "late", name="plain").consume()

    async def coroutine(n): ...

    with pytest.raises(ConfigurationError, match="before its queue is consumed"):
        engine.task(coroutine, "late", name="coroutine")


def test_greenlets_have_no_coroutines_beside_them():
    class Green(ThreadPool):
        capabilities = PoolCapability.GREEN

    with pytest.raises(ConfigurationError, match="queue of their own"):
        CompositePool(Green(1), AsyncioPool(1))


# ---------------------------------------------------------------------- the parts


def job(coroutine=False):
    made = Job()
    fn = lambda job: None  # noqa: E731
    made.plan = Plan("", "q", None if coroutine else fn, fn if coroutine else None, lambda *_: ())
    made.delivery, made.acked, made.owner = Delivery((0, 0), b""), False, None
    return made


class Rooms(Pool):
    """So much room for each kind."""

    submit = waiting = running = withdraw = interrupt = close = lambda *_: ()

    def __init__(self, plain, coroutine):
        self.rooms, self.size = {False: plain, True: coroutine}, plain + coroutine

    def room(self, job):
        return self.rooms[job.plan.run is None]


def test_surplus_of_one_kind_is_told_from_what_fits():
    kinds = Kinds(pool := Rooms(1, 2))
    batch = [job(), job(), job(True), job(), job(True), job(True), job(True)]
    fit, back = [*batch[:3], *batch[4:6]], [batch[6], batch[3]]
    assert kinds.take_surplus(batch, 1) == back
    assert batch == fit
    assert kinds.scarce is back[1]
    assert kinds.space(1) == 2
    pool.rooms[False] = 5
    assert not kinds.take_surplus([job(), job(True)], 0)
    assert kinds.scarce  # there may be more of them
    assert not kinds.take_surplus([job(True)], 0)
    assert kinds.scarce is None


def test_of_a_line_leaves_only_what_has_room():
    kinds = Kinds(Rooms(1, 2))
    line = [job(), job(True), job(), job(True)]
    assert kinds.leading(line, 0) == 2
    assert kinds.leading(line, 1) == 4
    assert kinds.leading([], 0) == 0


def test_pool_of_one_kind_counts_none():
    kinds, batch = Kinds(ThreadPool(1)), [job() for _ in range(5)]
    assert not kinds.take_surplus(batch, 0)
    assert kinds.leading(batch, 0) == 5


def test_a_full_part_makes_the_whole_full():
    pool = CompositePool(ThreadPool(2), AsyncioPool(3))
    pool._plain.abandoned = lambda: 3
    assert pool.abandoned() > pool.size
    pool._plain.abandoned = lambda: 2
    assert pool.abandoned() == 2


def test_processes_are_those_of_the_plain_part():
    pool = CompositePool(ThreadPool(1), AsyncioPool(1))
    assert (*pool.processes(), pool.process_of(job())) == (os.getpid(),)
    pool._plain.processes, pool._plain.process_of = lambda: [1], lambda job: 1
    pool._plain.began = lambda job: 2.5
    assert (pool.began(job()), pool.began(job(coroutine=True))) == (2.5, 0.0)
    assert (pool.processes(), pool.process_of(job()), pool.process_of(job(coroutine=True))) == (
        [1], 1, os.getpid()
    )  # fmt: skip


def test_either_part_that_does_not_answer_is_not_alive():
    pool = CompositePool(ThreadPool(2), AsyncioPool(3))
    assert pool.alive(BOUND)
    pool._plain.alive = lambda within: False
    assert not pool.alive(BOUND)
