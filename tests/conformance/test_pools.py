"""Every pool of this process against the conformance suite, and what is special in each."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from green import LIBRARIES, run_patched
from helpers import BOUND, until

from fsdf_engine.errors import ConfigurationError, SoftTimeLimit
from fsdf_engine.executor import ExecutorPool
from fsdf_engine.outcomes import Failed, Interrupted, Succeeded, TimedOut
from fsdf_engine.pools.coroutines import AsyncioPool, shared_loop
from fsdf_engine.pools.greenlets import EventletPool, GeventPool
from fsdf_engine.pools.inline import InlinePool
from fsdf_engine.pools.threads import ThreadCarrier, ThreadPool
from fsdf_engine.shrinkable import ShrinkablePool
from fsdf_engine.testing.pools import PoolConformance, Records

ROOT = Path(__file__).resolve().parent.parent.parent
TRACED = """
import os, sys, threading, time
from fsdf_engine.outcomes import TimedOut
from fsdf_engine.pools.threads import ThreadPool
from fsdf_engine.testing.runs import PoolSuite, Records, eventually

suite, (reader, writer), begun = PoolSuite(), os.pipe(), threading.Event()
suite.owner = Records()

def wait_in_c():
    begun.set()
    os.read(reader, 1)

pool = ThreadPool(1)
jobs = suite.jobs(wait_in_c, ())
pool.submit(jobs)
begun.wait()
assert pool.interrupt(jobs[0], TimedOut(1.0), kill=True)
if sys.argv[1] == "ended":
    os.write(writer, b"x")
    suite.owner.all_ended(jobs)
sys.settrace(lambda *event: None)
(lambda: print("traced", flush=True))()
sys.settrace(None)
os._exit(0)
"""


class TestThreads(PoolConformance):
    def make(self, size, **options):
        return ThreadPool(size, **options)

    def slots(self, pool):
        return pool._slots.all

    def test_a_million_slots_cost_nothing_until_jobs_need_them(self, pool):
        large = self.make(1_000_000)
        for n in range(50):
            jobs = self.jobs(lambda: None, ())
            self.owner = jobs[0].owner = Records()
            large.submit(jobs)
            self.owner.all_ended(jobs)
            until(lambda: len(large._slots._parked) == len(self.slots(large)))
        assert len(self.slots(large)) == 1
        large.close(BOUND)

    def test_pool_grows_as_far_as_its_runs_block(self, pool):
        large = self.make(1_000_000)
        jobs = self.jobs(self.held, *[()] * 60)
        large.submit(jobs)
        until(lambda: self.runs.at_once == 60)
        assert len(self.slots(large)) == 60
        self.runs.go.set()
        self.owner.all_ended(jobs)
        assert not large.close(BOUND)
        assert not self.slots(large)

    def test_idle_slots_end_after_their_time(self, pool):
        brief = self.make(8, keep_alive=0.01)
        jobs = self.jobs(self.held, *[()] * 8)
        brief.submit(jobs)
        until(lambda: self.runs.at_once == 8)
        self.runs.go.set()
        until(lambda: not self.slots(brief))
        self.works(brief)
        brief.close(BOUND)

    @pytest.mark.parametrize("run", ["abandoned", "ended"])
    def test_functions_can_be_traced_whatever_was_interrupted(self, run):
        """As by a debugger, or for coverage."""
        done = subprocess.run(
            [sys.executable, "-c", TRACED, run], cwd=ROOT, text=True, timeout=BOUND,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "traced\n")

    def test_call_that_computes_in_c_is_abandoned(self, pool):
        """No exception can reach it; its slot is given to another one all the same."""
        reader, writer = os.pipe()

        def compute():
            hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 200_000)
            os.read(reader, 1)

        jobs = self.jobs(compute, *[()] * 4)
        pool.submit(jobs)
        until(lambda: len(pool.running()) == 4)
        for job in jobs:
            self.outlives(pool, job)
        assert pool.abandoned() == 4
        assert not pool.running()
        owner = self.owner
        self.works(pool)
        os.close(writer)
        until(lambda: not pool.abandoned())
        owner.all_ended(jobs)
        os.close(reader)
        assert {job.outcome for job in jobs} == {TimedOut(1.0)}
        self.works(pool)

    def test_exception_is_raised_once_in_a_run(self, pool):
        (job,) = self.jobs(self.stubborn, ())
        pool.submit([job])
        until(lambda: self.runs.at_once == 1)
        assert pool.interrupt(job, Interrupted(), kill=True)
        until(lambda: self.runs.raised == 1)
        assert not pool.interrupt(job, Interrupted(), kill=True)
        self.runs.go.set()
        self.owner.all_ended([job])
        assert self.runs.raised == 1
        assert job.outcome == Succeeded(None)

    def test_exception_that_comes_too_late_is_swallowed_in_the_slot(self, pool, monkeypatch):
        """The run returns between the look at what runs and the raising."""
        one, go, carrier = self.make(1), threading.Event(), ThreadCarrier
        throw = carrier.throw

        def late_throw(self, slot, job, error):
            go.set()
            until(lambda: slot.job is None)
            return throw(self, slot, job, error)

        monkeypatch.setattr(carrier, "throw", late_throw)
        jobs = self.jobs(lambda: go.wait(BOUND), *[()] * 50)
        one.submit(jobs[:1])
        until(one.running)
        before = self.slots(one).copy()
        assert one.interrupt(jobs[0], Interrupted(), kill=True)
        one.submit(jobs[1:])
        self.owner.all_ended(jobs)
        assert {job.outcome for job in jobs} == {Succeeded(True)}
        assert self.slots(one) == before  # it did not die of it
        one.close(BOUND)

    def test_no_job_is_lost_where_no_thread_can_start(self, pool, monkeypatch):
        start, most = threading.Thread.start, 2

        def refuse(thread):
            if thread.name == "fsdf-slot" and len(self.slots(poor)) > most:
                raise RuntimeError("can't start new thread")
            start(thread)

        poor = self.make(50)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        jobs = self.jobs(self.held, *[()] * 20)
        poor.submit(jobs)
        until(lambda: self.runs.at_once == 2)
        self.runs.go.set()
        self.owner.all_ended(jobs)
        assert self.runs.most == 2
        poor.close(BOUND)

    def test_submitting_to_a_closed_pool_loses_nothing(self, pool):
        pool.close(BOUND)
        jobs = self.jobs(lambda: None, *[()] * 20)
        pool.submit(jobs)
        self.owner.all_ended(jobs)
        assert not pool.close(BOUND)

    @pytest.mark.parametrize("size", [0, -1, 1.5, "4", True])
    def test_size_is_a_positive_whole_number(self, pool, size):
        with pytest.raises(ConfigurationError, match="whole number"):
            self.make(size)


class TestCoroutines(PoolConformance):
    def make(self, size, **options):
        return AsyncioPool(size, **options)

    @pytest.fixture
    def own(self):
        """A loop of the caller's, running in the caller's thread."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        yield loop
        if not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)
            thread.join(BOUND)
            loop.close()

    def test_pools_of_a_process_share_one_loop(self, pool):
        other = self.make(2)
        jobs = [*self.jobs(asyncio.get_running_loop, ()), *self.jobs(asyncio.get_running_loop, ())]
        pool.submit(jobs[:1])
        other.submit(jobs[1:])
        self.owner.all_ended(jobs)
        assert [job.outcome.value for job in jobs] == [shared_loop()] * 2

    def test_given_loop_is_used_and_left_running(self, pool, own):
        mine = self.make(4, loop=own)
        (job,) = self.jobs(asyncio.get_running_loop, ())
        mine.submit([job])
        self.owner.all_ended([job])
        assert job.outcome == Succeeded(own)
        self.works(mine)
        assert not mine.close(BOUND)
        assert own.is_running()

    def test_run_that_stops_the_loop_stops_nothing(self, pool):
        def stop():
            asyncio.get_running_loop().stop()

        jobs = self.jobs(stop, *[()] * 4)
        pool.submit(jobs)
        self.owner.all_ended(jobs)
        self.works(pool)

    def test_run_that_cancels_every_task_loses_none(self, pool):
        """Those, too, that were made but have not taken their first step."""

        def cancel():
            for task in asyncio.all_tasks():
                task.cancel()

        jobs = self.jobs(cancel, *[()] * 40)
        pool.submit(jobs)
        self.owner.all_ended(jobs)
        assert any(isinstance(job.outcome, Failed) for job in jobs)
        self.works(pool)

    def test_run_that_swallows_two_cancels_is_ended_by_the_third(self, pool):
        swallowed = []

        async def swallow():
            while len(swallowed) < 2:
                try:
                    await asyncio.sleep(BOUND)
                except asyncio.CancelledError:
                    swallowed.append(1)
            await asyncio.sleep(BOUND)

        (job,) = self.jobs(swallow, ())
        pool.submit([job])
        until(pool.running)
        assert pool.interrupt(job, Interrupted(), kill=True)
        self.owner.all_ended([job])
        assert isinstance(job.outcome.error, Interrupted)
        assert not pool.abandoned()

    def test_soft_limit_is_raised_as_it_is_and_what_the_run_waits_for_is_cancelled(self, pool):
        error, caught, ended = SoftTimeLimit("mine"), [], []

        async def inner():
            try:
                await asyncio.sleep(BOUND)
            finally:
                ended.append("cancelled")

        async def work():
            waits = asyncio.ensure_future(inner())
            try:
                await waits
            except SoftTimeLimit as raised:
                caught.append(raised)
            cancelling = getattr(asyncio.current_task(), "cancelling", int)  # Python 3.11
            return waits.cancelled(), cancelling()

        (job,) = self.limited(work, ())
        pool.submit([job])
        until(lambda: job in pool._stepped)
        assert pool.interrupt(job, error)
        self.owner.all_ended([job])
        assert job.outcome == Succeeded((True, 0))
        assert caught == [error]
        assert ended == ["cancelled"]

    def test_soft_limit_is_raised_though_what_the_run_waits_for_swallows_the_cancel(self, pool):
        async def swallow():
            try:
                await asyncio.sleep(BOUND)
            except asyncio.CancelledError:
                return "swallowed"

        async def work():
            return await asyncio.ensure_future(swallow())

        (job,) = self.limited(work, ())
        pool.submit([job])
        until(lambda: job in pool._stepped)
        assert pool.interrupt(job, SoftTimeLimit())
        self.owner.all_ended([job])
        assert isinstance(job.outcome.error, SoftTimeLimit)

    def test_loop_that_does_not_answer_is_not_alive(self, pool, own):
        mine, go = self.make(4, loop=own), threading.Event()
        jobs = self.jobs(go.wait, ())
        mine.submit(jobs)
        until(mine.running)
        assert mine.alive(BOUND)  # sends the ping
        until(lambda: not mine.alive(0.05))
        go.set()
        until(lambda: mine.alive(0.05))
        self.owner.all_ended(jobs)

    def test_closed_loop_is_not_alive_and_gives_jobs_back(self, pool):
        loop = asyncio.new_event_loop()
        loop.close()
        mine = self.make(4, loop=loop)
        jobs = self.jobs(lambda: None, *[()] * 3)
        mine.submit(jobs)
        assert not mine.alive(BOUND)
        assert list(mine.withdraw(10)) == jobs[::-1]
        assert not mine.close(BOUND)


class TestExecutor(PoolConformance):
    """Runs past their deadline keep their threads: the executors here have some to spare."""

    def make(self, size, **options):
        return ExecutorPool(ThreadPoolExecutor(2 * size), size)

    def test_thread_is_taken_only_while_jobs_wait(self, pool):
        executor = ThreadPoolExecutor(1)
        shared = ExecutorPool(executor, 1)
        jobs = self.jobs(threading.get_ident, *[()] * 20)
        for job in jobs:
            shared.submit([job])
            assert executor.submit(threading.get_ident).result(BOUND)
        self.owner.all_ended(jobs)
        assert {job.outcome.value for job in jobs} == {
            executor.submit(threading.get_ident).result()
        }
        executor.shutdown()

    def test_others_have_their_turn_however_many_jobs_wait(self, pool):
        executor, go = ThreadPoolExecutor(1), threading.Event()
        shared = ExecutorPool(executor, 1)
        jobs = self.jobs(lambda: go.wait(0.001), *[()] * 100_000)
        shared.submit(jobs)
        assert executor.submit(int).result(BOUND) == 0
        assert shared.waiting()
        go.set()
        shared.withdraw(len(jobs))
        executor.shutdown()

    @pytest.mark.parametrize("cancel", [False, True])
    def test_jobs_that_a_closed_executor_cannot_run_are_given_back(self, pool, cancel):
        executor, go = ThreadPoolExecutor(1), threading.Event()
        shared = ExecutorPool(executor, 1)
        executor.submit(go.wait, BOUND)
        jobs = self.jobs(lambda: None, *[()] * 3)
        if cancel:
            shared.submit(jobs)
            executor.shutdown(wait=False, cancel_futures=True)
        else:
            executor.shutdown(wait=False)
            shared.submit(jobs)
        assert not shared._slots.all
        assert list(shared.withdraw(10)) == jobs[::-1]
        assert not shared.close(BOUND)
        go.set()


class TestShrinkable(PoolConformance):
    def make(self, size, **options):
        return ExecutorPool(ShrinkablePool(2 * size), size)


class TestInline(PoolConformance):
    def make(self, size, **options):
        return InlinePool(size)

    def test_every_run_has_the_same_thread(self, pool):
        jobs = self.jobs(threading.get_ident, *[()] * 100)
        for job in jobs:
            pool.submit([job])
        self.owner.all_ended(jobs)
        assert pool.size == 1
        assert len({job.outcome.value for job in jobs}) == 1


class TestLentThread(PoolConformance):
    """The suite again: its jobs run in a thread that was lent to the pool."""

    def make(self, size, **options):
        pool, lent = InlinePool(size), threading.Event()

        def serve():
            serves = pool.lend()
            lent.set()
            serves()

        threading.Thread(target=serve, daemon=True).start()
        assert lent.wait(BOUND)
        return pool

    def test_a_handler_that_raises_where_jobs_are_awaited_costs_no_job(self, monkeypatch):
        """The thread is gone; a slot that was about to live in it gets one of its own."""
        pool = InlinePool()
        serve, acquire = pool.lend(), pool._carrier._come.acquire

        def interrupted():
            acquire()
            raise KeyboardInterrupt

        monkeypatch.setattr(pool._carrier._come, "acquire", interrupted)
        self.owner = Records()
        jobs = self.jobs(threading.get_ident, *[()] * 3)
        pool.submit(jobs)
        with pytest.raises(KeyboardInterrupt):
            serve()
        self.owner.all_ended(jobs)
        assert threading.get_ident() not in {job.outcome.value for job in jobs}
        assert not pool.close(BOUND)


@pytest.mark.parametrize("library", LIBRARIES)
def test_greenlets_pass_the_conformance_suite(library):
    run_patched(library, "tests/conformance/patched_pools.py")


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (GeventPool, "from gevent import monkey; monkey.patch_all()"),
        (EventletPool, "import eventlet; eventlet.monkey_patch()"),
    ],
)
def test_greenlet_pool_names_the_missing_line(kind, line):
    with pytest.raises(ConfigurationError) as caught:
        kind(4)
    assert str(caught.value).endswith(line)
