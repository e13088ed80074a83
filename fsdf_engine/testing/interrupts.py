"""What pools of this process do to runs that are interrupted, or outlive their limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ..contracts import Job, Pool
from ..errors import SoftTimeLimit
from ..outcomes import Failed, Interrupted, Succeeded, TimedOut
from .runs import PoolSuite, Records, Runs, eventually

__all__ = ["InterruptConformance"]


class InterruptConformance(PoolSuite):
    """The part of `PoolConformance` about interrupts and deadlines."""

    # ------------------------------------------------------------------ interrupts

    def test_interrupt_ends_a_run_that_waits(self, pool: Pool) -> None:
        jobs = self.jobs(self.held, *[(n,) for n in range(pool.size)])
        pool.submit(jobs)
        eventually(lambda: self.runs.at_once == pool.size)
        assert pool.interrupt(jobs[-1], Interrupted(), kill=True)
        eventually(lambda: jobs[-1] not in pool.running())
        assert set(pool.running()) == set(jobs[:-1])
        self.runs.go.set()
        self.owner.all_ended(jobs)
        assert isinstance(jobs[-1].outcome, Failed)
        assert isinstance(jobs[-1].outcome.error, Interrupted)
        assert {type(job.outcome) for job in jobs[:-1]} <= {Succeeded}
        self.works(pool)

    def test_interrupt_reaches_no_job_that_waits_or_has_ended(self, pool: Pool) -> None:
        ended = self.jobs(lambda: None, ())
        pool.submit(ended)
        self.owner.all_ended(ended)
        self.owner = Records()
        jobs = self.jobs(self.held, *[(n,) for n in range(pool.size + 1)])
        pool.submit(jobs)
        eventually(lambda: self.runs.at_once == pool.size and ended[0] not in pool.running())
        assert not pool.interrupt(ended[0], Interrupted(), kill=True)
        assert not pool.interrupt(jobs[-1], Interrupted(), kill=True)
        self.runs.go.set()
        self.owner.all_ended(jobs)
        assert {type(job.outcome) for job in jobs} == {Succeeded}

    @pytest.mark.parametrize("error", [SoftTimeLimit(), Interrupted()], ids=["soft", "kill"])
    def test_late_interrupts_hit_nobody_else(self, pool: Pool, error: BaseException) -> None:
        """Interrupts rain on short runs: they end what they mean or nothing, and cost no slot."""
        count, meant, kill = 3000, set(), isinstance(error, Interrupted)
        jobs = self.limited(lambda n: sum(range(n % 50)), *[(n,) for n in range(count)])
        stop = threading.Event()

        def rain() -> None:
            while not stop.is_set():
                for job in list(pool.running()):
                    meant.add(job)
                    pool.interrupt(job, error, kill)
                stop.wait(0.0001)

        thread = threading.Thread(target=rain)
        thread.start()
        for first in range(0, count, 10):
            pool.submit(jobs[first : first + 10])
        try:
            self.owner.all_ended(jobs)
        finally:
            stop.set()
            thread.join()
        hit = {job for job in jobs if isinstance(job.outcome, Failed)}
        assert hit <= meant
        self.works(pool)

    # ------------------------------------------------------------------ soft limits

    def limited(self, fn: Callable[..., Any], *calls: tuple[Any, ...]) -> list[Job]:
        """Return jobs that have claims, as those have that have limits."""
        jobs = self.jobs(fn, *calls)
        for job in jobs:
            job.claims = [None]
        return jobs

    def tidy(self, *args: Any) -> Any:
        """Run until `self.runs.go`; catch a soft limit and return."""
        runs = self.runs

        def hold() -> Any:
            try:
                with runs:
                    while not runs.go.wait(0.002):
                        pass
            except SoftTimeLimit as error:
                return type(error)

        async def ahold() -> Any:
            try:
                with runs:
                    while not runs.go.is_set():
                        await asyncio.sleep(0.002)
            except SoftTimeLimit as error:
                return type(error)

        return ahold() if self.asynchronous else hold()

    def test_soft_limit_can_be_caught_and_the_run_returns(self, pool: Pool) -> None:
        jobs = self.limited(self.tidy, *[()] * pool.size)
        pool.submit(jobs)
        eventually(lambda: self.runs.at_once == pool.size)
        assert pool.interrupt(jobs[0], SoftTimeLimit())
        eventually(lambda: jobs[0] not in pool.running())
        assert set(pool.running()) == set(jobs[1:])
        assert not pool.abandoned()
        self.runs.go.set()
        self.owner.all_ended(jobs)
        assert jobs[0].outcome == Succeeded(SoftTimeLimit)
        assert {job.outcome for job in jobs[1:]} <= {Succeeded(None)}
        self.works(pool)

    def test_soft_limit_that_is_not_caught_fails_the_run(self, pool: Pool) -> None:
        (job,) = self.limited(self.held, ())
        pool.submit([job])
        eventually(lambda: self.runs.at_once == 1)
        assert pool.interrupt(job, SoftTimeLimit())
        self.owner.all_ended([job])
        assert isinstance(job.outcome, Failed)
        assert type(job.outcome.error) is SoftTimeLimit
        assert str(job.outcome.error)
        self.works(pool)

    def test_deadline_and_stop_reach_a_run_that_has_caught_its_soft_limit(self, pool: Pool) -> None:
        for kill in (self.outlives, self.interrupted):
            (job,) = self.limited(self.stubborn, ())
            pool.submit([job])
            eventually(lambda: self.runs.at_once == 1)
            for n in range(3):
                assert pool.interrupt(job, SoftTimeLimit())
                eventually(lambda n=n: self.runs.raised == n + 1)  # type: ignore[misc]
            kill(pool, job)
            eventually(lambda: self.runs.raised > 3)
            self.runs.go.set()
            self.owner.all_ended([job])
            eventually(lambda: not pool.abandoned())
            self.works(pool)
            self.owner, self.runs = Records(), Runs()

    def interrupted(self, pool: Pool, job: Job) -> None:
        """End a running job as a stopping worker does."""
        assert pool.interrupt(job, Interrupted(), kill=True)

    def test_nothing_is_raised_any_more_in_a_run_that_is_to_end(self, pool: Pool) -> None:
        (job,) = self.limited(self.stubborn, ())
        pool.submit([job])
        eventually(lambda: self.runs.at_once == 1)
        self.interrupted(pool, job)
        eventually(lambda: self.runs.raised)
        assert not pool.interrupt(job, SoftTimeLimit())
        self.runs.go.set()
        self.owner.all_ended([job])

    def test_soft_limit_reaches_no_job_that_waits_or_has_ended(self, pool: Pool) -> None:
        ended = self.limited(lambda: None, ())
        pool.submit(ended)
        self.owner.all_ended(ended)
        self.owner = Records()
        jobs = self.limited(self.held, *[()] * (pool.size + 1))
        pool.submit(jobs)
        eventually(lambda: self.runs.at_once == pool.size and ended[0] not in pool.running())
        assert not pool.interrupt(ended[0], SoftTimeLimit())
        assert not pool.interrupt(jobs[-1], SoftTimeLimit())
        self.runs.go.set()
        self.owner.all_ended(jobs)
        assert {type(job.outcome) for job in jobs} == {Succeeded}

    # ------------------------------------------------------------------ deadlines

    @staticmethod
    def needs_spare(pool: Pool) -> None:
        """Skip a test of what takes the place of abandoned runs."""
        if not pool.spare:
            pytest.skip("nothing takes their place")

    def test_without_spare_slots_jobs_wait_for_an_abandoned_run(self, pool: Pool) -> None:
        if pool.spare:
            pytest.skip("others take its place")
        jobs = self.jobs(self.stubborn, *[()] * 3)
        pool.submit(jobs)
        eventually(lambda: self.runs.at_once == 1)
        self.outlives(pool, jobs[0])
        assert (pool.abandoned(), pool.waiting()) == (1, 2)
        self.runs.go.set()
        self.owner.all_ended(jobs)
        assert [type(job.outcome) for job in jobs] == [TimedOut, Succeeded, Succeeded]
        self.works(pool)

    def test_run_past_its_deadline_gives_up_its_slot(self, pool: Pool) -> None:
        self.needs_spare(pool)
        late = self.jobs(self.stubborn, *[()] * min(2, pool.size))
        pool.submit(late)
        eventually(lambda: self.runs.at_once == len(late))
        for job in late:
            self.outlives(pool, job)
        eventually(lambda: pool.abandoned() == len(late))
        assert not pool.running()
        first, runs = self.owner, self.runs
        self.works(pool)  # with all its slots
        assert pool.abandoned() == len(late)
        eventually(lambda: runs.raised >= len(late))
        runs.go.set()
        eventually(lambda: not pool.abandoned())
        first.all_ended(late)
        assert {job.outcome for job in late} == {TimedOut(1.0)}
        self.works(pool)

    def test_waiting_jobs_get_the_slots_of_abandoned_runs(self, pool: Pool) -> None:
        self.needs_spare(pool)
        late = self.jobs(self.stubborn, *[()] * pool.size)
        more = self.jobs(lambda: None, *[()] * 5, owner=Records())
        pool.submit([*late, *more])
        eventually(lambda: self.runs.at_once == pool.size)
        assert pool.waiting() == 5
        for job in late:
            self.outlives(pool, job)
        more[0].owner.all_ended(more)  # type: ignore[attr-defined]
        self.runs.go.set()
        eventually(lambda: not pool.abandoned())

    def test_run_ends_at_its_deadline_where_it_waits(self, pool: Pool) -> None:
        (job,) = self.jobs(self.held, ())
        pool.submit([job])
        eventually(lambda: self.runs.at_once == 1)
        self.outlives(pool, job)
        eventually(lambda: not self.runs.at_once and not pool.abandoned())
        self.owner.all_ended([job])
        assert job.outcome == TimedOut(1.0)
        self.works(pool)

    def test_nothing_is_raised_where_the_plan_says_so(self, pool: Pool) -> None:
        self.needs_spare(pool)
        (job,) = self.jobs(self.stubborn, (), kill=False)
        pool.submit([job])
        eventually(lambda: self.runs.at_once == 1)
        self.outlives(pool, job)
        eventually(lambda: pool.abandoned() == 1)
        runs = self.runs
        self.works(pool)
        runs.go.set()
        eventually(lambda: not pool.abandoned())
        assert not runs.raised

    def test_abandoned_runs_take_at_most_the_spare_slots(self, pool: Pool) -> None:
        self.needs_spare(pool)
        runs, size = self.runs, pool.size
        kept = self.jobs(self.stubborn, *[()] * (2 * size))
        for batch in kept[:size], kept[size:]:
            pool.submit(batch)
            eventually(lambda: len(pool.running()) == runs.at_once - pool.abandoned() == size)
            for job in batch:
                self.outlives(pool, job)
            eventually(lambda: not pool.running())
        more = self.jobs(self.stubborn, *[()] * 4)
        pool.submit(more)
        assert pool.abandoned() == 2 * size
        assert pool.waiting() == 4  # nobody is left to run them
        assert list(pool.withdraw(100)) == more[::-1]
        runs.go.set()
        eventually(lambda: not pool.abandoned())
        self.owner.all_ended(kept)
        self.works(pool)
