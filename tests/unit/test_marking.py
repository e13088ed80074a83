"""Marks of what is acknowledged: there while it has no end, taken over when its worker is gone."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from doubles import Loud, Results, bodies
from helpers import BOUND, until

from fsdf_engine.contracts import Layout
from fsdf_engine.core import consumer as consumer_module
from fsdf_engine.errors import Unavailable
from fsdf_engine.marking import ENDED
from fsdf_engine.outcomes import Succeeded
from fsdf_engine.result_sink import result_sink
from fsdf_engine.stores.memory import MemoryStore

EARLY = {"early": True, "sinks": (result_sink(60.0),)}


class Held:
    """Runs that wait for `go`."""

    def __init__(self):
        self.go, self.started = threading.Event(), []

    def __call__(self, n):
        self.started.append(n)
        self.go.wait(BOUND)


@pytest.fixture(autouse=True)
def restless(monkeypatch):
    """An idle consumer looks again soon."""
    monkeypatch.setattr(consumer_module, "IDLE", 0.05)


@pytest.fixture
def lost(start):
    """`lost(results, count)` -> a consumer that has acknowledged so many and marks them no more."""
    runs = []

    def lost(results, count=3, spec=EARLY):
        broker, run = Loud(), Held()
        runs.append(run)
        broker.publish(bodies(count))
        handle = start(broker, run, spec=spec, results=results, lease=0.3)
        until(lambda: len(run.started) == count)
        handle.consumer.keeper.tend = lambda: None
        return handle

    yield lost
    for run in runs:
        run.go.set()


def test_a_mark_is_there_before_the_acknowledgement_and_until_the_end(start):
    broker, results, run = Loud(), Results(), Held()
    marked = []
    settle = MarkedSettles(results, marked)
    subscribe = broker.subscribe
    broker.subscribe = lambda queue, *, lease: settle.watch(subscribe(queue, lease=lease))
    broker.publish(bodies(3))
    handle = start(broker, run, spec=EARLY, results=results)
    until(lambda: len(run.started) == 3)
    assert marked == [1]
    run.go.set()
    until(lambda: not handle.consumer.held())
    handle.consumer.marking.tend()
    assert not results.marks()._kept


class MarkedSettles:
    """Counts the marks at each settle."""

    def __init__(self, results, marked):
        self.results, self.marked = results, marked

    def watch(self, subscription):
        settle = subscription.settle

        def told(batch):
            self.marked.append(len(self.results.marks()._kept))
            return settle(batch)

        subscription.settle = told
        return subscription


def test_a_mark_that_lapses_before_its_answer_came_is_not_taken_for_another_workers(start):
    """Its worker stood still for a lease."""
    broker, results, seen, held = Loud(), Results(), [], []
    marks = results.marks()
    put = marks.put

    def slow(given):
        names = put(given)
        until(lambda: marks.read([]) == {} and marks._lapsed)
        held.append(handle.consumer)
        handle.consumer.marking.tend()
        return names

    handle = start(broker, lambda n: seen.append(n), spec=EARLY, results=results, lease=0.05)
    handle.consumer.keeper.tend = lambda: None
    marks.put = slow
    broker.publish(bodies(2))
    until(lambda: len(seen) == 2 and not handle.consumer.held())
    assert held
    assert results.statuses() == ["succeeded", "succeeded"]
    assert all(json.loads(r.body)["status"] == "succeeded" for r in results.log)


def test_marks_do_not_pile_up_while_messages_come(start):
    broker, results = Loud(), Results()
    handle = start(broker, lambda n: None, spec=EARLY, results=results)
    for n in range(3 * ENDED):
        broker.publish(bodies(1))
        until(lambda n=n: handle.consumer.outbox.settled == n + 1)
    assert len(results.marks()._kept) <= ENDED


def test_a_mark_tells_no_more_of_what_has_ended_beside_a_long_run(start):
    """Else whoever adopts it would find no end where that has expired, and tell of a loss."""
    broker, results, run = Loud(), Results(), Held()
    done = []

    def work(n):
        (run if n else done.append)(n)

    broker.publish(bodies(2))
    handle = start(broker, work, spec=EARLY, results=results)
    until(lambda: run.started and handle.consumer.outbox.settled == 1)
    [before] = watched(results)
    assert told_of(results, before) == ["0", "1"]
    handle.consumer.marking.tend()
    [after] = watched(results)
    assert told_of(results, after) == ["1"]
    handle.consumer.marking.tend()
    assert watched(results) == [after]
    run.go.set()
    until(lambda: not handle.consumer.held())
    handle.consumer.marking.tend()
    assert not results.marks()._kept


def told_of(results, name):
    return [row[0] for row in json.loads(results.marks().read([name])[name])]


def test_without_results_and_without_early_acknowledgement_nothing_is_marked(start):
    broker, results = Loud(), Results()
    broker.publish(bodies(3))
    late = start(broker, lambda n: None, spec={"sinks": EARLY["sinks"]}, results=results)
    until(lambda: late.consumer.outbox.settled == 3)
    other = Loud()
    other.publish(bodies(3))
    off = start(other, lambda n: None, spec={"early": True}, results=results)
    until(lambda: off.consumer.outbox.settled == 3)
    assert not results.marks()._kept


def test_a_store_that_is_away_keeps_all_unacknowledged(start, monkeypatch):
    broker, results, seen = Loud(), Results(), []
    put, down = results.marks().put, [True]

    def failing(marks):
        names = put(marks)  # and the answer is lost
        if down[0]:
            raise Unavailable("down")
        return names

    monkeypatch.setattr(results.marks(), "put", failing)
    broker.publish(bodies(3))
    handle = start(broker, lambda n: seen.append(n), spec=EARLY, results=results)
    until(lambda: handle.consumer._outage.failures)
    assert not seen
    assert broker.size("q").leased == 3
    down[0] = False
    until(lambda: len(seen) == 3 and not handle.consumer.held())
    handle.consumer.marking.tend()
    assert not results.marks()._kept


def test_what_a_lost_worker_had_acknowledged_ends_as_lost(start, lost):
    results = Results()
    gone = lost(results)
    results.write([record_of(gone, "0")])
    other = Loud()
    handle = start(other, lambda n: None, spec=EARLY, results=results, lease=0.3)
    until(lambda: results.statuses() == ["lost", "lost", "succeeded"])
    until(lambda: not watched(results))
    assert "its worker was lost" in results.told("1")["reason"]
    until(lambda: not handle.consumer.held())
    assert other.size("q") == (0, 0, 0, 0)  # of a body that nobody has there is no letter


def watched(results):
    """Return the names of marks of groups that are open."""
    return [name for name, (_, mark) in list(results.marks()._kept.items()) if mark.watched]


def record_of(handle, id):
    """Return what a run of the lost worker tells of its success."""
    [job] = [job for job in handle.consumer.keeper.acked if job.id == id]
    [record] = job.plan.sinks[0](job, Succeeded("late"))
    return record


def test_an_end_that_is_stored_stays_in_whatever_layout(start, lost):
    """Also where the worker was not dead, only stalled, and tells of its run after we have."""
    store = MemoryStore("")
    store.add_layout(Layout("plain", "plain:", lambda body: b"retry" not in body))
    sink = result_sink(60.0)

    def plain(job, outcome):
        return [replace(record, layout="plain") for record in sink(job, outcome)]

    spec = {**EARLY, "sinks": (plain,)}
    gone = lost(store, spec=spec)
    store.write([record_of(gone, "0")])
    start(Loud(), lambda n: None, spec=spec, results=store, lease=0.3)
    until(lambda: len(store.read(["0", "1", "2"], final=True, layout="plain")) == 3)
    store.write([record_of(gone, "1")])
    told = store.read(["0", "1", "2"], layout="plain")
    statuses = [json.loads(told[id])["status"] for id in ("0", "1", "2")]
    assert statuses == ["succeeded", "succeeded", "lost"]


def test_a_sink_that_says_where_an_end_is_stored_tells_of_losses_only(start, lost):
    results, asked = Results(), []
    store = result_sink(60.0)

    def sink(job, outcome):
        asked.append((job.id, type(outcome).__name__))
        return store(job, outcome)

    setattr(sink, "layout_of", lambda job: None if job.id == "2" else "")  # noqa: B010
    spec = {**EARLY, "sinks": (sink,)}
    gone = lost(results, spec=spec)
    results.write([record_of(gone, "0")])
    asked.clear()
    start(Loud(), lambda n: None, spec=spec, results=results, lease=0.3)
    until(lambda: not watched(results))
    assert sorted(asked) == [("1", "Lost"), ("2", "Lost")]


def test_a_consumer_of_another_queue_leaves_them_alone(start, lost):
    results = Results()
    lost(results)
    handle = start(Loud(), lambda n: None, spec=EARLY, results=results, lease=0.3, queue="q:2")
    until(lambda: results.marks().lapsed(0.0))
    handle.consumer.marking.tend()
    assert not handle.consumer.marking.lapsed
    assert not results.records
