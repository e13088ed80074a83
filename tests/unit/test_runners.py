"""A runner of a plan's own drives its runs; whatever it does is its run's matter."""

from __future__ import annotations

import threading

import pytest
from doubles import Results, bodies
from helpers import BOUND, until

from fsdf_engine import Engine
from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Outgoing, Record, Told
from fsdf_engine.core.retry import RetryPolicy
from fsdf_engine.outcomes import SUCCEEDED, Failed, Rejected, Retry, Revoked, Succeeded
from fsdf_engine.result_sink import result_sink

SINKS = (result_sink(60.0),)


@pytest.fixture(params=["plain", "coroutine"])
def lead(request, start):
    """`lead(runner, fn)` -> the record of one run that the runner drives."""

    def lead(runner, fn=lambda n: n, count=1, **spec):
        async def afn(n):
            return fn(n)

        async def arunner(job, afn):
            def call(*args, **kwargs):
                coroutine = afn(*args, **kwargs)
                try:
                    coroutine.send(None)
                except StopIteration as stop:
                    return stop.value

            return runner(job, call)

        plain = request.param == "plain"
        broker, results = MemoryBroker(), Results()
        broker.publish(bodies(count))
        given = {"sinks": SINKS, "policy": RetryPolicy(3), **spec}
        given["runner"] = runner if plain else arunner
        handle = start(broker, fn if plain else afn, spec=given, results=results)
        until(lambda: handle.consumer.outbox.settled >= count)
        lead.broker = broker
        return results.told("0")

    return lead


def follow(job, fn):
    try:
        return Succeeded(fn(*job.args, **job.kwargs))
    except ValueError as error:
        return job.plan.policy.outcome(error, job.attempt)


def test_a_runner_calls_the_function_with_decoded_arguments(lead):
    assert lead(follow, lambda n: n + 5)["result"] == 5


def test_a_runner_need_not_call_the_function(lead):
    told = lead(lambda job, fn: Rejected("not today"))
    assert (told["status"], told["reason"]) == ("rejected", "not today")


def test_an_outcome_without_fields_is_one(lead):
    assert lead(lambda job, fn: Revoked())["status"] == "revoked"


def test_a_retry_of_a_runner_is_another_attempt_of_it(lead):
    attempts = []

    def runner(job, fn):
        attempts.append(job.attempt)
        return Retry(ValueError(), 0.0, 1) if not job.attempt else Succeeded(7)

    told = lead(runner)
    assert (told["result"], told["attempt"], attempts) == (7, 1, [0, 1])


def test_a_runner_commits_in_the_middle_of_a_run(start):
    broker, results, found = MemoryBroker(), Results(), []
    broker.publish(bodies(1))

    def runner(job, fn):
        job.owner.commit(job, [Outgoing("other", "x", b"1")])
        found.append(broker.size("other").waiting)
        return Succeeded(fn(*job.args, **job.kwargs))

    spec = {"sinks": SINKS, "runner": runner}
    handle = start(broker, lambda n: n + 1, spec=spec, results=results)
    until(lambda: handle.consumer.outbox.settled)
    assert (found, results.told("0")["result"]) == ([1], 1)


NONSENSE = [
    (None, "that is no outcome"),
    ("done", "that is no outcome"),
    (Succeeded, "that is no outcome"),
    (Failed("text"), "its error is 'text'"),
    (Retry(ValueError(), float("nan"), 1), "its delay is nan"),
    (Retry(ValueError(), -1.0, 1), "its delay is -1.0"),
    (Retry(ValueError(), 1e300, 1), "its delay is 1e+300"),
    (Retry(ValueError(), 0.0, 0), "attempt 0 does not follow on 0"),
    (Retry(ValueError(), 0.0, 1, changes=[1]), "its changes is [1]"),
]


@pytest.mark.parametrize(("given", "why"), NONSENSE, ids=[why for _, why in NONSENSE])
def test_what_is_no_outcome_fails_the_run(lead, given, why):
    told = lead(lambda job, fn: given, count=2)
    assert told["status"] == "failed"
    assert "the runner returned" in told["reason"]
    assert why in told["reason"]
    assert lead.broker.size("q") == (0, 0, 0, 2)


@pytest.mark.parametrize(
    ("kind", "why"),
    [(ValueError, "RuntimeError: the runner failed: ValueError: x"), (SystemExit, "SystemExit: x")],
)
def test_what_a_runner_raises_fails_the_run_at_once(lead, kind, why):
    calls = []

    def runner(job, fn):
        calls.append(1)
        raise kind("x")

    told = lead(runner)
    assert (told["status"], told["reason"], calls) == ("failed", why, [1])
    assert "in runner" in told["traceback"]


def test_a_runner_that_hangs_ends_at_its_limit(start):
    broker, results, go = MemoryBroker(), Results(), threading.Event()
    broker.publish(bodies(1))

    def runner(job, fn):
        while not go.wait(0.002):
            pass

    spec = {"sinks": SINKS, "timeout": 0.1, "runner": runner}
    handle = start(broker, lambda n: n, spec=spec, results=results)
    until(lambda: handle.consumer.outbox.settled)
    assert results.told("0")["status"] == "timedout"


def test_a_runner_that_a_stop_interrupts_gives_its_message_back(start):
    broker, results, go = MemoryBroker(), Results(), threading.Event()
    broker.publish(bodies(1))

    def runner(job, fn):
        while not go.wait(0.002):
            pass

    handle = start(broker, lambda n: n, spec={"sinks": SINKS, "runner": runner}, results=results)
    until(handle.pool.running)
    handle.stop(timeout=0.1)
    assert broker.size("q") == (1, 0, 0, 0)
    assert not results.records


def test_a_runner_may_tell_a_success_itself_and_no_sink_is_asked(lead):
    def runner(job, fn):
        record = Record(job.id, b'{"status": "mine"}')
        return Told(SUCCEEDED, [record])

    assert lead(runner) == {"status": "mine"}


def test_a_runner_may_tell_the_json_of_a_value(lead):
    told = lead(lambda job, fn: b'{"mine": [1]}')
    assert (told["status"], told["result"]) == ("succeeded", {"mine": [1]})


def test_a_runner_may_say_that_nothing_is_to_be_told(start):
    broker, results = MemoryBroker(), Results()
    broker.publish(bodies(3))
    spec = {"sinks": SINKS, "runner": lambda job, fn: b"" if job.kwargs["n"] else b"0"}
    handle = start(broker, lambda n: n, spec=spec, results=results)
    until(lambda: handle.consumer.outbox.settled >= 3)
    assert (list(results.records), broker.size("q")) == (["0"], (0, 0, 0, 0))


def test_an_effect_of_a_runner_that_is_not_right_fails_its_run(lead):
    told = lead(lambda job, fn: Told(SUCCEEDED, [Record(job.id, "no bytes")]))
    assert told["status"] == "failed"
    assert "Record" in told["reason"]


def test_a_layers_gates_judge_and_its_soft_error_is_raised():
    class Gate:
        def judge(self, batch, now):
            return [Revoked() if b"no" in job.delivery.body else None for job in batch]

    class Mine(Exception):
        pass

    engine, seen, waits = Engine(), [], threading.Event()
    engine.gates = (Gate(),)
    engine.amend = lambda plan: plan._replace(soft_error=Mine)

    def work(text):
        try:
            while not waits.wait(0.002):
                pass
        except Mine as error:
            seen.append((text, type(error)))
        waits.wait(BOUND)

    options = {"broker_kind": "memory", "soft_time_limit": 0.05, "concurrent_num": 1}
    task = engine.task(work, "gated", **options)
    for text in ("no", "yes", "later"):
        task.push(text)
    try:
        handle = task.consume()
        until(lambda: seen)
        running, waiting = handle.jobs()
        assert [job.kwargs for job in running] == [{"text": "yes"}]
        assert not {"no", "yes"} & {job.kept["text"] for job in waiting}
    finally:
        waits.set()
        engine.close()
    assert seen[0] == ("yes", Mine)
