"""The process pool over real children: what travels, what is killed, what is lost."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import process_tasks
import psutil
import pytest
from helpers import BOUND, until
from process_tasks import QUEUE, give_value

from fsdf_engine.contracts import Delivery, Job, PoolCapability
from fsdf_engine.core.ending import give_verdict
from fsdf_engine.core.telling import RemoteError
from fsdf_engine.errors import ConfigurationError, LeaseLost, PublishError
from fsdf_engine.message import FLAT
from fsdf_engine.outcomes import (
    SUCCEEDED,
    Crashed,
    Failed,
    Interrupted,
    Invalid,
    Requeue,
    Retry,
    Succeeded,
    TimedOut,
    Unknown,
)
from fsdf_engine.pools.processes import ProcessPool

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the tests kill by signals")
HERE = Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(map(str, (HERE, HERE.parent, HERE.parent.parent))),
}
RESOLVE = "process_tasks:resolve"


class Outbox:
    """The owner of a test's jobs: writes down how they ended and what their runs committed.

    The value of a success is taken from the record that its child has made.
    """

    def __init__(self):
        self.ended, self.effects = [], []
        self.error = None  # what a commit raises
        self._changed = threading.Condition()

    def put(self, job):
        give_value(job)
        with self._changed:
            self.ended.append(job)
            self._changed.notify_all()

    def commit(self, job, effects):
        if self.error:
            raise self.error
        self.effects += [(job.id, effect) for effect in effects]

    def wait(self, count, bound=BOUND):
        with self._changed:
            done = self._changed.wait_for(lambda: len(self.ended) >= count, bound)
        assert done, f"{len(self.ended)} of {count} have ended"
        assert len(self.ended) == count
        return self.ended


@pytest.fixture
def outbox():
    return Outbox()


@pytest.fixture
def make():
    """Return a factory of pools that are closed at the end, and leave no child."""
    made = []

    def factory(size=1, **options):
        pool = ProcessPool(size, **{"resolve": RESOLVE, **options})
        made.append(pool)
        return pool

    yield factory
    for pool in made:
        pids = pool.processes()
        for job in pool.close(0.0):
            pool.interrupt(job, Interrupted(), kill=True)
        pool.close(BOUND)
        until(lambda pids=pids: not any(map(psutil.pid_exists, pids)))


def job_of(owner, task, *, timeout=0.0, nth=0, body=None, **arguments):
    job = Job()
    job.plan = process_tasks.resolve(QUEUE, task, timeout) if task != "missing" else _missing()
    job.owner, job.id = owner, f"id-{nth}"
    job.delivery = Delivery((0, nth), body or json.dumps(arguments).encode())
    job.published_at, job.attempt = 0.0, 0
    job.claims = [None] if timeout else None
    job.acked, job.pushes, job.extra = False, None, {}
    job.args, job.kwargs = (), arguments
    return job


def _missing():
    plan = process_tasks.resolve(QUEUE, "noop")
    return type(plan)("missing", QUEUE, plan.run, plan.arun, plan.bind)


def run(pool, owner, task, **arguments):
    """Run one job and return its outcome."""
    owner.ended.clear()
    pool.submit([job_of(owner, task, **arguments)])
    return owner.wait(1)[0].outcome


def numbered(owner, task, numbers, **arguments):
    """Return a job per number, which is an argument and part of the id."""
    return [job_of(owner, task, nth=n, number=n, **arguments) for n in numbers]


def waiting_job(owner, number, log, gate):
    """Return a job that notes its start in `log` and ends when `gate` exists."""
    arguments = {"path": str(log), "gate": str(gate)}
    return job_of(owner, "log_and_wait", nth=number, number=number, **arguments)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


# ---------------------------------------------------------------------- what travels


def test_values_come_back_and_nothing_is_the_one_success(make, outbox):
    pool = make()
    assert run(pool, outbox, "add", a=3, b=6) == Succeeded(9)
    assert run(pool, outbox, "noop") is SUCCEEDED
    value = {"list": [1, 2.5, None, True], "text": "日本語", "bytes": b"\0\xff"}
    body = json.dumps({"value": {**value, "bytes": {"__type__": "base64", "__value__": "AP8="}}})
    assert run(pool, outbox, "echo", body=body.encode()) == Succeeded(value)
    assert PoolCapability.KILLS in pool.capabilities


def test_large_bodies_and_values_travel(make, outbox):
    pool = make(2)
    jobs = [job_of(outbox, "echo", nth=n, value=str(n) * 500_000) for n in range(8)]
    pool.submit(jobs)
    outbox.wait(8)
    assert [job.outcome.value[0] for job in jobs] == [str(n) for n in range(8)]
    assert {len(job.outcome.value) for job in jobs} == {500_000}


def test_coroutine_functions_run_on_the_childs_loop(make, outbox):
    pool = make()
    assert run(pool, outbox, "a_add", a=3, b=6) == Succeeded(9)
    assert run(pool, outbox, "a_push", number=1) == Succeeded("stored")
    assert [effect.id for _, effect in outbox.effects] == ["child-1"]


def test_imported_exceptions_come_back_as_themselves_with_their_traceback(make, outbox):
    outcome = run(make(), outbox, "fail", kind="value")
    assert type(outcome) is Failed
    assert type(outcome.error) is ValueError
    assert outcome.error.args == ("a wrong value", 7)
    assert "process_tasks.py" in outcome.trace
    assert "in fail" in outcome.trace
    assert "process_tasks.py" in str(outcome.error.__cause__)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("exit", SystemExit), ("interrupt", KeyboardInterrupt),
        ("cancelled", asyncio.CancelledError),
    ],
)  # fmt: skip
def test_what_is_no_exception_ends_its_run_only(make, outbox, kind, error):
    pool = make()
    outcome = run(pool, outbox, "fail", kind=kind)
    assert type(outcome) is Failed
    assert type(outcome.error) is error
    pids = pool.processes()
    assert run(pool, outbox, "add", a=1, b=2) == Succeeded(3)
    assert pool.processes() == pids


@pytest.mark.parametrize(("kind", "name"), [("odd", "Odd"), ("local", "Hidden")])
def test_exceptions_that_cannot_be_built_again_keep_name_and_text(make, outbox, kind, name):
    outcome = run(make(), outbox, "fail", kind=kind)
    assert isinstance(outcome.error, RemoteError)
    assert type(outcome.error).__name__ == name
    assert type(outcome.error).__module__ == "process_tasks"
    assert str(outcome.error) in ("3: three", "nobody can import me")


def test_value_without_a_json_form_fails_its_run_where_a_sink_needs_it(make, outbox):
    outcome = run(make(), outbox, "opaque")
    assert type(outcome) is Failed
    assert "a value of type object has no JSON form" in outcome.reason


def test_wrong_arguments_are_invalid_and_undeclared_tasks_unknown(make, outbox, caplog):
    pool = make()
    assert type(run(pool, outbox, "add", a=1)) is Invalid
    with caplog.at_level(logging.ERROR, "fsdf.pools"):
        assert run(pool, outbox, "missing") == Unknown("missing")
    assert "not declared in the child process" in caplog.text
    assert "no such task" in caplog.text
    assert run(pool, outbox, "add", a=1, b=1) == Succeeded(2)


def test_message_fields_reach_the_run(make, outbox):
    pool = make()
    job = job_of(outbox, "context", body=b'{"extra": {"task_id": "given", "headers": {"h": 1}}}')
    job.id, job.attempt, job.published_at = "given", 2, 5.5
    job.delivery.deliveries, job.delivery.state = 3, {"attempt": 2, "permit": "p"}
    pool.submit([job])
    outbox.wait(1)
    assert job.outcome == Succeeded(
        ["given", QUEUE, 2, 3, 5.5, {"h": 1}, {"attempt": 2, "permit": "p"}]
    )


def test_context_variables_do_not_leak_between_runs(make, outbox):
    pool = make()
    assert run(pool, outbox, "leak", text="mine") == Succeeded("")
    assert run(pool, outbox, "leak", text="mine") == Succeeded("")


# ---------------------------------------------------------------------- commits in a run


def test_push_in_a_run_is_stored_by_the_parent_before_it_goes_on(make, outbox):
    pool = make(2)
    jobs = numbered(outbox, "push", range(20))
    pool.submit(jobs)
    outbox.wait(20)
    assert {job.outcome for job in jobs} == {Succeeded("stored")}
    stored = {(job, effect.id, effect.queue, effect.body) for job, effect in outbox.effects}
    assert stored == {(f"id-{n}", f"child-{n}", "next", b"%d" % n) for n in range(20)}


def test_lost_lease_reaches_the_run_that_pushes(make, outbox):
    outbox.error = LeaseLost("another worker has it")
    outcome = run(make(), outbox, "push", number=1)
    assert type(outcome) is Failed
    assert type(outcome.error) is LeaseLost
    assert str(outcome.error) == "another worker has it"


def test_publish_error_names_the_messages_of_the_run(make, outbox):
    pool = make()
    outbox.commit = lambda job, effects: raise_publish_error(effects)
    assert run(pool, outbox, "push_caught", number=1) == Succeeded(["child-1"])


def raise_publish_error(effects):
    raise PublishError(effects)


def raise_unknown(effects):
    raise PublishError([], effects)


def test_a_push_of_a_child_that_has_no_answer_keeps_its_id_for_the_next_attempt(make, outbox):
    pool, sent = make(), []
    outbox.commit = lambda job, effects: sent.extend(effects) or raise_unknown(effects)
    states = []
    for _ in range(3):
        outbox.ended.clear()
        job = job_of(outbox, "push_and_retry")
        job.delivery.state = states[-1] if states else None
        job.attempt = len(states)
        pool.submit([job])
        outbox.wait(1)
        give_verdict(job, 0.0)
        states.append(job.verdict.state)
    assert len({outgoing.id for outgoing in sent}) == 1
    assert [state["pushes"] for state in states] == [[1, 0, 1], [2, 0, 1], [3, 0, 1]]


def test_the_last_retry_in_a_child_tells_its_cause(make, outbox):
    outcome = run(make(), outbox, "retry_from_an_outage")
    assert type(outcome) is Failed
    assert outcome.reason == "Retry: later (attempt 1, the last); cause: OSError: away"


def test_what_a_plan_takes_to_make_is_not_of_its_first_run_s_time(make, outbox):
    assert run(make(), outbox, "planned_slowly", timeout=0.5) == Succeeded(1)


# ---------------------------------------------------------------------- children


def test_children_are_started_as_needed_up_to_size(make, outbox, tmp_path):
    pool = make(3)
    for n in range(5):
        run(pool, outbox, "noop", nth=n)
    assert len(pool.processes()) == 1
    outbox.ended.clear()
    gate, log = tmp_path / "gate", tmp_path / "log"
    jobs = [waiting_job(outbox, n, log, gate) for n in range(8)]
    pool.submit(jobs)
    until(lambda: len(lines(log)) == 3)
    assert set(map(id, pool.running())) == set(map(id, jobs[:3]))
    assert {pool.process_of(job) for job in jobs[:3]} == set(pool.processes())
    assert pool.waiting() == 5
    assert list(pool.withdraw(2, outbox)) == [jobs[7], jobs[6]]
    assert not pool.withdraw(2, Outbox())
    gate.touch()
    outbox.wait(6)
    assert len(pool.processes()) == 3


def test_when_a_run_began_is_known_where_it_is_and_of_no_other(make, outbox, tmp_path):
    pool, before = make(1), time.monotonic()
    gate, log = tmp_path / "gate", tmp_path / "log"
    jobs = [waiting_job(outbox, n, log, gate) for n in range(2)]
    assert pool.began(jobs[0]) == 0.0
    pool.submit(jobs)
    until(lambda: lines(log))
    assert before < pool.began(jobs[0]) < time.monotonic()
    assert pool.began(jobs[1]) == 0.0
    [child] = pool._children
    child.ledger.restart(BOUND)  # as while it asks what its task is
    assert pool.began(jobs[0]) == 0.0
    gate.touch()
    outbox.wait(2)
    assert pool.began(jobs[0]) == 0.0


def test_killed_child_loses_only_the_run_it_had_started(make, outbox, tmp_path):
    pool = make(1)
    run(pool, outbox, "add", a=1, b=2)
    gate, log = tmp_path / "gate", tmp_path / "log"
    outbox.ended.clear()
    first = waiting_job(outbox, 0, log, gate)
    rest = [job_of(outbox, "add", a=n, b=0) for n in range(50)]
    pool.submit([first, *rest])
    until(lambda: lines(log))
    pid = int(lines(log)[0].split()[1])
    os.kill(pid, signal.SIGKILL)
    outbox.wait(51)
    assert first.outcome == Crashed(-signal.SIGKILL)
    assert [job.outcome.value for job in rest] == list(range(50))
    assert pid not in pool.processes()


def test_outcomes_written_before_the_death_are_kept(make, outbox, tmp_path):
    """Short runs are reported together; those that ended before the deadly one are not lost."""
    pool = make(1)
    outbox_warm(pool, outbox)
    log = tmp_path / "log"
    jobs = numbered(outbox, "log_and_die_at_7", range(12), path=str(log))
    pool.submit(jobs)
    outbox.wait(12)
    assert [type(job.outcome) for job in jobs].count(Crashed) == 1
    assert jobs[7].outcome == Crashed(9)
    assert lines(log) == [str(n) for n in range(12)]  # each once, the deadly one too


def outbox_warm(pool, outbox):
    """Let the pool learn that these runs are short, so that they are handed over together."""
    with_path = numbered(outbox, "log_and_die_at_7", [100] * 30, path=os.devnull)
    pool.submit(with_path)
    outbox.wait(30)
    outbox.ended.clear()


def test_thousand_jobs_and_random_kills_lose_nothing(make, outbox, tmp_path):
    """Each ran, none is lost, and a kill repeats at most one run."""
    pool = make(4)
    log = tmp_path / "log"
    jobs = numbered(outbox, "log_start", range(1000), path=str(log))
    again, ended = [], threading.Event()

    def put(job):  # as the broker would: what crashed comes back
        if type(job.outcome) in (Crashed, Requeue):
            again.append(job)
            pool.submit([job])
        else:
            give_value(job)
            outbox.ended.append(job)
            if len(outbox.ended) == len(jobs):
                ended.set()

    outbox.put = put
    pool.submit(jobs)
    kills, chance = 0, random.Random(7)
    while not ended.is_set():
        before = len(outbox.ended)
        until(lambda n=before: len(outbox.ended) >= min(n + 60, len(jobs)))
        if not ended.is_set() and (pids := pool.processes()):
            os.kill(chance.choice(pids), signal.SIGKILL)
            kills += 1
    assert kills > 5
    assert Counter(map(id, outbox.ended)) == Counter(map(id, jobs))
    assert all(job.outcome == Succeeded(n) for n, job in enumerate(jobs))
    starts = Counter(map(int, lines(log)))
    assert set(starts) == set(range(1000))
    assert sum(starts.values()) <= 1000 + kills
    assert len(again) <= kills


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_signals_to_children_are_left_to_their_parent(make, outbox, tmp_path, method):
    """A service manager signals every process; what that means is for the parent to tell."""
    others = set(psutil.Process().children(recursive=True))  # servers of other tests
    pool = make(1, start_method=method)
    job = waiting_job(outbox, 0, tmp_path / "log", tmp_path / "gate")
    pool.submit([job])
    until(lambda: lines(tmp_path / "log"))
    for each in set(psutil.Process().children(recursive=True)) - others:
        each.send_signal(signal.SIGTERM)
        each.send_signal(signal.SIGINT)
    (tmp_path / "gate").touch()
    outbox.wait(1)
    assert type(job.outcome) is Succeeded


def test_death_by_sigterm_is_not_counted_against_the_message(make, outbox):
    """One that a run has let through: somebody has ended the child on purpose."""
    assert run(make(), outbox, "terminate") == Requeue()


def test_child_is_replaced_after_so_many_jobs(make, outbox, monkeypatch):
    """It runs less where the system stalls it: what waits behind a long run is taken back."""
    monkeypatch.setattr("fsdf_engine.pools.processes.STUCK", 60.0)
    pool = make(1, max_tasks_per_child=3)
    jobs = [job_of(outbox, "pid", nth=n) for n in range(10)]
    pool.submit(jobs)
    outbox.wait(10)
    assert Counter(job.outcome.value for job in jobs).most_common() == [
        (pid, n)
        for (pid, _), n in zip(
            Counter(job.outcome.value for job in jobs).most_common(), [3, 3, 3, 1], strict=True
        )
    ]


def test_child_is_replaced_when_it_has_grown(make, outbox):
    pool = make(1, max_memory_per_child=120 << 20)
    small = run(pool, outbox, "grow", size=1 << 10)
    grown = run(pool, outbox, "grow", size=150 << 20)
    after = run(pool, outbox, "grow", size=1 << 10)
    assert small == grown
    assert after != grown


def test_job_for_which_a_child_is_being_started_does_not_wait_for_another(make, outbox, tmp_path):
    """Else a consumer takes it for stalled behind long runs, and gives it back."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    pool, seen = make(2), set()
    pool.submit([waiting_job(outbox, n, log, gate) for n in range(5)])
    until(lambda: seen.add(pool.waiting()) or len(lines(log)) == 2)
    assert seen <= {3, 4}  # of which one is being handed over
    gate.touch()
    outbox.wait(5)


def test_child_that_takes_long_to_start_keeps_no_message(make, outbox, tmp_path, monkeypatch):
    monkeypatch.setattr("fsdf_engine.pools.processes.BIRTH", 0.0)
    pool = make(1)
    pool.submit([job_of(outbox, "noop")])
    until(lambda: pool.waiting() == 1 or outbox.ended)
    outbox.wait(1)


def test_close_ends_children_that_are_still_starting(make, outbox, tmp_path, monkeypatch, caplog):
    (tmp_path / "endless_import.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.syspath_prepend(tmp_path)
    pool = make(2, preload=("endless_import",))
    pool.submit([job_of(outbox, "noop") for _ in range(2)])
    until(lambda: len(pool.processes()) == 2)
    assert len(pool.withdraw(2)) == 2
    with caplog.at_level(logging.INFO, "fsdf.pools"):
        assert not pool.close(BOUND)
    assert not pool.processes()
    assert not caplog.records  # nothing has failed


def test_values_of_many_megabytes_travel_both_ways(make, outbox):
    value = "x" * (20 << 20)
    assert run(make(1), outbox, "echo", value=value) == Succeeded(value)


def test_child_that_dies_at_its_start_is_tried_again_later(make, outbox, caplog):
    pool = make(1, preload=("no_such_module",))
    with caplog.at_level(logging.WARNING, "fsdf.pools"):
        pool.submit([job_of(outbox, "noop")])
        until(lambda: not pool.alive(1.0))
    assert "No module named 'no_such_module'" in caplog.text
    assert "the next try follows" in caplog.text
    assert pool.waiting() == 1
    assert len(pool.withdraw(5)) == 1


@pytest.mark.parametrize("method", ["forkserver", "fork"])
def test_other_start_methods_run_and_kill(make, outbox, method):
    pool = make(2, start_method=method, preload=("process_tasks",))
    jobs = [job_of(outbox, "add", a=n, b=1) for n in range(100)]
    pool.submit(jobs)
    outbox.wait(100)
    assert [job.outcome.value for job in jobs] == list(range(1, 101))
    assert run(pool, outbox, "exit_now") == Crashed(9)
    assert run(pool, outbox, "c_loop", timeout=0.2) == TimedOut(0.2)
    assert run(pool, outbox, "add", a=1, b=1) == Succeeded(2)


def test_ctrl_c_is_left_to_the_parent(make, outbox):
    pool = make()
    assert run(pool, outbox, "outlive_sigint") == Succeeded(-signal.SIGINT)
    assert os.getpgid(pool.processes()[0]) != os.getpgid(0)


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ConfigurationError, match="size 0"):
        ProcessPool(0)
    with pytest.raises(ConfigurationError, match="'thread'; this system has"):
        ProcessPool(1, start_method="thread")


# ---------------------------------------------------------------------- deadlines


def test_c_loop_is_killed_at_its_deadline(make, outbox):
    pool = make(1)
    run(pool, outbox, "noop")
    (pid,) = pool.processes()
    outcome = run(pool, outbox, "c_loop", timeout=0.3)
    assert outcome == TimedOut(0.3)
    until(lambda: not psutil.pid_exists(pid))
    assert run(pool, outbox, "add", a=1, b=1) == Succeeded(2)


def test_deadline_counts_from_the_start_of_the_run(make, outbox, tmp_path):
    """A job that waits for a slot longer than its timeout still has all of its time."""
    pool = make(1)
    jobs = [job_of(outbox, "sleep", timeout=1.0, nth=n, seconds=0.4) for n in range(5)]
    pool.submit(jobs)
    outbox.wait(5)
    assert {type(job.outcome) for job in jobs} == {Succeeded}


def test_processes_that_a_run_has_started_die_with_it(make, outbox, tmp_path):
    log = tmp_path / "log"
    pool = make(1)
    assert run(pool, outbox, "start_sleeper", timeout=1.5, path=str(log)) == TimedOut(1.5)
    (sleeper,) = map(int, lines(log))
    until(lambda: not alive(sleeper))


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_attempt_in_place_has_a_whole_timeout(make, outbox, tmp_path):
    log = tmp_path / "log"
    pool = make(1)
    job = job_of(outbox, "flaky", timeout=1.0, path=str(log))
    pool.submit([job])
    outbox.wait(1)
    ended = time.monotonic()
    assert job.outcome == TimedOut(1.0)
    first, second = map(float, lines(log))
    assert second - first >= 0.6
    assert ended - second >= 0.8  # not the 0.4 that are left of 1.0; it logs when it has begun


def test_interrupted_run_goes_back_and_its_child_is_replaced(make, outbox, tmp_path):
    pool = make(2)
    log, gate = tmp_path / "log", tmp_path / "gate"
    jobs = [waiting_job(outbox, n, log, gate) for n in range(2)]
    pool.submit(jobs)
    until(lambda: len(lines(log)) == 2)
    assert pool.interrupt(jobs[0], Interrupted(), kill=True)
    outbox.wait(1)
    assert type(jobs[0].outcome) is Failed
    assert type(jobs[0].outcome.error) is Interrupted
    assert not pool.interrupt(jobs[0], Interrupted(), kill=True)
    gate.touch()
    outbox.wait(2)
    assert jobs[1].outcome == Succeeded(1)


def test_job_behind_a_run_that_became_long_is_taken_back(make, outbox, tmp_path):
    """The pool has learnt that these runs are short; one that is not must not hold the others."""
    log, gate, open_gate = tmp_path / "log", tmp_path / "gate", tmp_path / "open"
    open_gate.touch()
    pool = make(2)
    pool.submit([waiting_job(outbox, n, os.devnull, open_gate) for n in range(300)])
    outbox.wait(300)
    outbox.ended.clear()
    slow = waiting_job(outbox, 0, log, gate)
    quick = [waiting_job(outbox, n, log, open_gate) for n in range(1, 20)]
    pool.submit([slow, *quick])
    outbox.wait(19)
    assert pool.running() == [slow]
    assert pool.waiting() == 0
    gate.touch()
    outbox.wait(20)


# ---------------------------------------------------------------------- the end


def test_close_runs_what_waits_and_ends_the_children(make, outbox):
    pool = make(2)
    jobs = [job_of(outbox, "sleep", seconds=0.01, nth=n) for n in range(20)]
    pool.submit(jobs)
    assert pool.close(BOUND) == []
    assert len(outbox.ended) == 20
    assert pool.processes() == []
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(jobs)


def test_close_returns_what_is_alive_after_the_grace(make, outbox, tmp_path):
    pool = make(1)
    gate = tmp_path / "gate"
    jobs = [waiting_job(outbox, n, tmp_path / "log", gate) for n in range(2)]
    pool.submit(jobs)
    until(lambda: lines(tmp_path / "log"))
    assert set(map(id, pool.close(0.01))) == set(map(id, jobs))
    assert pool.interrupt(jobs[0], Interrupted(), kill=True)
    outbox.wait(2)
    assert jobs[1].outcome == Requeue()  # it must not start in the next child
    assert pool.close(BOUND) == []


PARENT = """
import sys, threading
from test_process_pool import Outbox, job_of
from fsdf_engine.pools.processes import ProcessPool

if __name__ == "__main__":
    outbox = Outbox()
    pool = ProcessPool(2, resolve="process_tasks:resolve", start_method=sys.argv[1])
    pool.submit([job_of(outbox, "c_loop", nth=n) for n in range(2)])
    while len(pool.running()) < 2:
        threading.Event().wait(0.01)
    print(*pool.processes(), flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_nothing_is_orphaned_when_the_parent_is_killed(tmp_path, method):
    """Not even a child in a C loop, which lets no thread of its own look."""
    (script := tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(script), method], stdout=subprocess.PIPE, text=True,
        env=ENVIRONMENT,
    ) as parent:  # fmt: skip
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.kill()
    until(lambda: not any(map(alive, children)))


MAIN = """
import threading
from process_tasks import resolve
from test_process_pool import Outbox, job_of
from fsdf_engine.core.exit import hold_exit
from fsdf_engine.pools.processes import ProcessPool

if __name__ == "__main__":
    outbox, pool = Outbox(), ProcessPool(1, resolve="__main__:resolve")
    release = hold_exit()

    def later():
        threading.main_thread().join(1.0)  # it waits for us: its code has ended
        pool.submit([job_of(outbox, "add", a=3, b=6)])
        print(outbox.wait(1)[0].outcome.value, flush=True)
        pool.close(20.0)
        release()

    threading.Thread(target=later, daemon=True).start()
"""


def test_children_import_a_main_module_that_has_ended(tmp_path):
    (script := tmp_path / "parent.py").write_text(MAIN)
    done = subprocess.run(
        [sys.executable, str(script)], env=ENVIRONMENT, timeout=2 * BOUND,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "9\n", done.stderr
    assert not done.stderr


def test_retry_travels_with_its_error(make, outbox):
    outcome = run(make(), outbox, "retry")
    assert type(outcome) is Retry
    assert (outcome.delay, outcome.attempt) == (7.0, 1)
    assert str(outcome.error) == "later"


def test_jobs_are_decoded_as_the_consumer_does(make, outbox):
    """The child reads the raw body: `extra` is control data, unless it is a plain argument."""
    body = b'{"value": 5, "extra": {"task_id": "x"}}'
    assert FLAT.envelope(body)[1] == {"value": 5}
    assert run(make(), outbox, "echo", body=body) == Succeeded(5)


def test_short_runs_are_wanted_ahead_two_hand_offs_for_each_child(make, outbox):
    pool = make(2)
    job, long = job_of(outbox, "noop"), job_of(outbox, "sleep", seconds=0.01)
    assert pool.ahead(job) == 0  # nothing is known of it
    pool.submit([job, long])
    outbox.wait(2)
    assert pool.ahead(long) == 0
    until(lambda: pool.ahead(job) > 2 or not pool.submit([job_of(outbox, "noop")]))
    assert pool.ahead(job) <= 2 * (2 * 250 - 1)


def found_job(owner, name, *, nth=0, **more):
    """Return a job whose task only a resolver knows."""
    job = job_of(owner, "noop", nth=nth, **more)
    job.plan = job.plan._replace(name=name, queue="found", resolver="found_tasks:resolve")
    return job


@pytest.fixture
def notes(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUND_NOTES", str(tmp_path / "notes"))
    return tmp_path / "notes"


def test_a_child_asks_for_what_it_does_not_know_once(make, outbox, notes):
    make().submit([found_job(outbox, "work", nth=n, n=n) for n in range(5)])
    assert {type(job.outcome) for job in outbox.wait(5)} == {Succeeded}
    assert len([line for line in lines(notes) if "resolve" in line]) == 1


def test_what_a_resolver_does_in_a_child_is_its_message_s_end(make, outbox, notes):
    pool = make()
    names = ["missing", "raise", "exit", "nonsense", "die", "work"]
    pool.submit([found_job(outbox, name, nth=n, n=n) for n, name in enumerate(names)])
    ended = {job.plan.name: job.outcome for job in outbox.wait(6)}
    assert ended["missing"] == Unknown(
        "missing", "its resolver failed: UnknownTask: the resolver found_tasks:resolve knows no"
        " task 'missing'",
    )  # fmt: skip
    assert ended["raise"].reason == "its resolver failed: ImportError: no module named 'pandas'"
    assert ended["exit"].reason == "its resolver failed: SystemExit: 3"
    assert "gave 5, which is no task" in ended["nonsense"].reason
    assert ended["die"] == Crashed(9)  # counted against its message
    assert type(ended["work"]) is Succeeded


def test_the_time_of_a_question_is_not_of_its_run(make, outbox, notes):
    pool = make()
    pool.submit([found_job(outbox, "slow", timeout=0.4, n=1)])
    assert type(outbox.wait(1)[0].outcome) is Succeeded
    pool.submit([found_job(outbox, "linger", timeout=0.4, nth=1, n=1)])
    assert outbox.wait(2)[1].outcome == TimedOut(0.4)


def test_a_child_that_its_resolver_keeps_ends(make, outbox, notes, monkeypatch, caplog):
    monkeypatch.setattr("fsdf_engine.pools.child.LIMIT", 0.5)
    make(start_method="fork").submit([found_job(outbox, "hang", timeout=0.1, n=1)])
    assert outbox.wait(1)[0].outcome == Crashed(-int(signal.SIGKILL))
    assert "the resolver of 'hang' has not answered for 0.5 s" in caplog.text


def test_idle_children_end_but_for_the_least(make, outbox, tmp_path):
    pool, gate = make(3, least=1, keep_alive=0.1), tmp_path / "gate"
    pool.submit([waiting_job(outbox, n, tmp_path / "log", gate) for n in range(3)])
    until(lambda: len(lines(tmp_path / "log")) == 3)
    assert len(pool.processes()) == 3  # none of them is idle
    gate.touch()
    outbox.wait(3)
    until(lambda: len(pool.processes()) == 1)
    [stays] = pool.processes()
    assert run(pool, outbox, "pid") == Succeeded(stays)
