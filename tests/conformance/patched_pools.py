"""The greenlet pools, in a process that their library has patched; see tests/green.py."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from fsdf_engine import green
from fsdf_engine.contracts import PoolCapability
from fsdf_engine.errors import ConfigurationError
from fsdf_engine.outcomes import Failed, Interrupted, Succeeded
from fsdf_engine.pools.greenlets import EventletPool, GeventPool
from fsdf_engine.testing.pools import BOUND, PoolConformance, eventually

GEVENT = green.active_hub() == "gevent"
if GEVENT:
    import gevent

    TIMEOUT, EXIT, current = gevent.Timeout, gevent.GreenletExit, gevent.getcurrent

    def timer(seconds):
        gevent.Timeout(seconds).start()

else:
    import eventlet
    import greenlet

    TIMEOUT, EXIT, current = eventlet.Timeout, greenlet.GreenletExit, eventlet.getcurrent

    def timer(seconds):
        eventlet.Timeout(seconds)


class TestGreenlets(PoolConformance):
    def make(self, size, **options):
        return (GeventPool if GEVENT else EventletPool)(size, **options)

    def test_pool_is_green(self, pool):
        assert PoolCapability.GREEN in pool.capabilities

    def test_pool_of_the_other_library_is_refused(self, pool):
        with pytest.raises(ConfigurationError, match="monkey"):
            (EventletPool if GEVENT else GeventPool)(4)

    @pytest.mark.parametrize("kind", [TIMEOUT, EXIT])
    def test_exceptions_of_the_library_end_their_run_only(self, pool, kind):
        def fail():
            raise kind

        jobs = self.jobs(fail, *[()] * 12)
        pool.submit(jobs)
        self.owner.all_ended(jobs)
        assert all(isinstance(job.outcome.error, kind) for job in jobs)
        self.works(pool)

    def test_timer_that_a_run_leaves_behind_harms_no_slot(self, pool):
        """It goes off in the slot's greenlet, whatever that does by then."""
        jobs = self.jobs(timer, *[(0.02,)] * 4)
        pool.submit(jobs)
        self.owner.all_ended(jobs)
        assert [job.outcome for job in jobs] == [Succeeded(None)] * 4
        green.Event().wait(0.03)  # a later timer of the hub: theirs have gone off before it
        self.works(pool)

    def test_timer_that_goes_off_as_the_slot_is_woken_harms_nothing(self, pool):
        jobs = []
        for n in range(60):
            batch = self.jobs(timer, *[(0.001 + n * 0.0001,)] * 4)
            jobs += batch
            pool.submit(batch)
            green.Event().wait(0.001)
        eventually(lambda: len(self.owner.jobs) == len(jobs))
        green.Event().wait(0.01)  # a later timer of the hub: all have gone off before it
        self.owner.all_ended(jobs)
        self.works(pool)

    def test_run_in_a_socket_is_interrupted(self, pool):
        ours, theirs = socket.socketpair()
        begun = green.Event()

        def receive():
            begun.set()  # who waits for it goes on once we wait in the socket
            ours.recv(1)

        (job,) = self.jobs(receive, ())
        pool.submit([job])
        assert begun.wait(BOUND)
        assert pool.interrupt(job, Interrupted(), kill=True)
        self.owner.all_ended([job])
        assert isinstance(job.outcome, Failed)
        assert isinstance(job.outcome.error, Interrupted)
        self.works(pool)
        ours.close()
        theirs.close()

    def test_jobs_that_never_switch_leave_the_hub_time_for_others(self, pool):
        """A consumer must read its socket while its slots are busy."""
        jobs = self.jobs(lambda: None, *[()] * 5000)
        seen = []

        def watch():
            while len(self.owner.jobs) < len(jobs):
                seen.append(len(self.owner.jobs))
                time.sleep(0)  # gives the hub a turn: what is watched

        watcher = threading.Thread(target=watch)
        watcher.start()
        pool.submit(jobs)
        self.owner.all_ended(jobs)
        watcher.join(BOUND)
        assert len(seen) >= 5
        assert max(b - a for a, b in zip(seen, [*seen[1:], 5000])) <= 100 * (pool.size + 1)

    def test_native_threads_may_submit_and_interrupt(self, pool):
        held = self.jobs(self.held, ())
        done, jobs = green.Event(), self.jobs(lambda: None, *[()] * 500)

        def foreign():
            pool.submit(held)
            for first in range(0, 500, 10):
                pool.submit(jobs[first : first + 10])
            done.set()

        green.native_thread(foreign, "submits")
        assert done.wait(BOUND)
        eventually(lambda: self.runs.at_once == 1 and len(self.owner.jobs) == 500)
        green.native_thread(lambda: pool.interrupt(held[0], Interrupted(), kill=True), "interrupts")
        self.owner.all_ended([*jobs, *held])
        assert isinstance(held[0].outcome.error, Interrupted)

    def test_greenlets_start_only_as_needed_and_end_when_idle(self, pool):
        large = self.make(1_000_000, keep_alive=0.02)
        jobs = self.jobs(self.held, *[()] * 30)
        large.submit(jobs)
        eventually(lambda: self.runs.at_once == 30)
        assert len(large._slots.all) == 30
        self.runs.go.set()
        self.owner.all_ended(jobs)
        eventually(lambda: not large._slots.all)
        self.works(self.make(3))
