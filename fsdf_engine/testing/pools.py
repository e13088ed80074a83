"""One conformance suite for every pool in this process: subclass it and say how to make one.

    class TestMine(PoolConformance):
        def make(self, size, **options):
            return MyPool(size, **options)

A pool with COROUTINES is given coroutine functions, any other plain ones. A pool of greenlets needs
a process that its library has patched first.
"""

from __future__ import annotations

import contextvars
import threading
import time

import pytest

from ..contracts import Job, Pool, PoolCapability
from ..outcomes import Failed, Interrupted, Succeeded
from .interrupts import InterruptConformance
from .runs import BOUND, RAISED, Records, Runs, eventually

__all__ = ["BOUND", "PoolConformance", "Records", "eventually"]


class PoolConformance(InterruptConformance):
    """Every test must pass unchanged; `make` gives the pool."""

    def test_every_job_ends_once_with_its_value(self, pool: Pool) -> None:
        jobs = self.jobs(lambda n: n, *[(n,) for n in range(2000)])
        for first in range(0, 2000, 100):
            pool.submit(jobs[first : first + 100])
        self.owner.all_ended(jobs)
        assert [job.outcome for job in jobs] == [Succeeded(n) for n in range(2000)]
        self.works(pool)

    def test_at_most_size_jobs_run_at_once(self, pool: Pool) -> None:
        self.works(pool)

    def test_jobs_start_in_the_order_of_submission(self) -> None:
        self.owner, self.runs, self.asynchronous = Records(), Runs(), False
        pool = self.make(1)
        order: list[int] = []
        jobs = self.jobs(order.append, *[(n,) for n in range(300)])
        for job in jobs:
            pool.submit([job])
        self.owner.all_ended(jobs)
        assert order == list(range(300))
        pool.close(BOUND)

    def test_concurrent_submitters_lose_nothing(self, pool: Pool) -> None:
        parts = [self.jobs(lambda n: n, *[(n,) for n in range(500)]) for _ in range(4)]

        def submit(jobs: list[Job]) -> None:
            for first in range(0, 500, 5):
                pool.submit(jobs[first : first + 5])

        threads = [threading.Thread(target=submit, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.owner.all_ended([job for part in parts for job in part])
        self.works(pool)

    @pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
    def test_what_user_code_raises_ends_its_run_only(
        self, pool: Pool, kind: type[BaseException]
    ) -> None:
        def fn(raises: bool) -> None:
            if raises:
                raise kind

        jobs = self.jobs(fn, *[(n % 2 == 0,) for n in range(24)])
        pool.submit(jobs)
        self.owner.all_ended(jobs)
        for n, job in enumerate(jobs):
            if n % 2:
                assert job.outcome == Succeeded(None)
            else:
                assert isinstance(job.outcome, Failed)
                error = job.outcome.error  # a coroutine cannot raise StopIteration: RuntimeError
                assert isinstance(error, kind) or isinstance(error.__cause__, kind)
        self.works(pool)

    @pytest.mark.parametrize("kind", RAISED, ids=lambda kind: kind.__name__)
    def test_what_is_raised_at_the_very_end_ends_its_run_only(
        self, pool: Pool, kind: type[BaseException]
    ) -> None:
        """Out of the plan itself, after user code returned: where an interrupt may still land."""

        class Last:
            def __exit__(self, *_: object) -> None:
                raise kind

            def __enter__(self) -> None: ...

        def fn() -> int:
            with Last():
                return 1

        jobs = self.jobs(fn, *[()] * 12)
        pool.submit(jobs)
        self.owner.all_ended(jobs)
        assert {type(job.outcome) for job in jobs} == {Failed}
        self.works(pool)

    def test_context_variables_of_a_run_do_not_leak(self, pool: Pool) -> None:
        if PoolCapability.COROUTINES not in pool.capabilities:
            return  # a plain plan runs in a context of its own whatever the pool
        variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
        variable.set(100)  # nor does the submitter's context reach the run

        def fn() -> int:
            variable.set(variable.get() + 1)
            return variable.get()

        jobs = self.jobs(fn, *[()] * 20)
        pool.submit(jobs)
        self.owner.all_ended(jobs)
        assert [job.outcome for job in jobs] == [Succeeded(1)] * 20

    def test_owner_that_raises_costs_no_slot(self, pool: Pool) -> None:
        class Broken(Records):
            def put(self, job: Job, /) -> None:
                super().put(job)
                raise ValueError("the owner's own error")

        owner = Broken()
        jobs = self.jobs(lambda: None, *[()] * 20, owner=owner)
        pool.submit(jobs)
        owner.all_ended(jobs)
        self.works(pool)

    # ------------------------------------------------------------------ taking back

    def test_withdraw_takes_back_what_has_not_started_the_last_first(self, pool: Pool) -> None:
        size = pool.size
        jobs = self.jobs(self.held, *[(n,) for n in range(size + 6)])
        pool.submit(jobs)
        eventually(lambda: self.runs.at_once == size)
        assert list(pool.withdraw(2)) == [jobs[-1], jobs[-2]]
        assert list(pool.withdraw(100)) == jobs[-3:-7:-1]
        assert not pool.waiting()
        assert not pool.withdraw(100)
        self.runs.go.set()
        self.owner.all_ended(jobs[:size])

    def test_withdraw_takes_only_the_jobs_of_an_owner(self, pool: Pool) -> None:
        other = Records()
        held = self.jobs(self.held, *[()] * pool.size)
        pool.submit(held)
        eventually(lambda: self.runs.at_once == pool.size)
        ours = self.jobs(lambda: None, *[()] * 3)
        theirs = self.jobs(lambda: None, *[()] * 3, owner=other)
        for mine, foreign in zip(ours, theirs):
            pool.submit([mine, foreign])
        assert list(pool.withdraw(2, self.owner)) == [ours[2], ours[1]]
        assert pool.waiting() == 4
        self.runs.go.set()
        other.all_ended(theirs)
        self.owner.all_ended([*held, ours[0]])

    def test_withdraw_leaves_what_nobody_leases_unless_it_is_wanted(self, pool: Pool) -> None:
        held = self.jobs(self.held, *[()] * pool.size)
        pool.submit(held)
        eventually(lambda: self.runs.at_once == pool.size)
        jobs = self.jobs(lambda: None, *[()] * 4)
        for n, job in enumerate(jobs):
            job.acked = n % 2 == 0
        pool.submit(jobs)
        assert list(pool.withdraw(100, self.owner, acked=False)) == [jobs[3], jobs[1]]
        assert not pool.withdraw(100, self.owner, acked=False)
        assert list(pool.withdraw(1, self.owner)) == [jobs[2]]
        self.runs.go.set()
        self.owner.all_ended([*held, jobs[0]])

    # ------------------------------------------------------------------ a thread that is lent

    def test_a_pool_that_takes_a_thread_runs_jobs_nowhere_else(self) -> None:
        self.owner, self.runs, self.asynchronous = Records(), Runs(), False
        pool = self.make(1)
        if (serve := pool.lend()) is None:
            pool.close(0.0)
            pytest.skip("it takes none")
        assert pool.lend() is None  # nor does it take another one
        jobs = self.jobs(threading.get_ident, *[()] * 20)
        for job in jobs:
            pool.submit([job])
        assert pool.waiting() == 20

        def close() -> None:
            self.owner.all_ended(jobs)
            pool.close(BOUND)

        end = threading.Thread(target=close)
        end.start()
        serve()
        end.join()
        assert {job.outcome for job in jobs} == {Succeeded(threading.get_ident())}
        self.works(pool)  # in a thread of its own

    # ------------------------------------------------------------------ the end

    def test_close_runs_what_waits(self, pool: Pool) -> None:
        jobs = self.jobs(lambda n: n, *[(n,) for n in range(500)])
        pool.submit(jobs)
        assert not pool.close(BOUND)
        self.owner.all_ended(jobs)

    def test_close_returns_the_runs_that_are_alive(self, pool: Pool) -> None:
        jobs = self.jobs(self.held, ())
        pool.submit(jobs)
        eventually(lambda: self.runs.at_once == 1)
        assert list(pool.close(0.02)) == jobs
        assert pool.interrupt(jobs[0], Interrupted(), kill=True)
        assert not pool.close(BOUND)
        assert isinstance(jobs[0].outcome, Failed)
        assert isinstance(jobs[0].outcome.error, Interrupted)

    def test_close_does_not_wait_for_abandoned_runs(self, pool: Pool) -> None:
        (job,) = self.jobs(self.stubborn, ())
        pool.submit([job])
        eventually(lambda: self.runs.at_once == 1)
        self.outlives(pool, job)
        eventually(lambda: pool.abandoned() == 1)
        started = time.monotonic()
        assert not pool.close(BOUND)
        assert time.monotonic() - started < BOUND

    def test_pool_that_works_is_alive(self, pool: Pool) -> None:
        for _ in range(3):
            assert pool.alive(BOUND)
