"""What becomes of what a lost worker had acknowledged, or perhaps had: decided once, for all."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from doubles import ListForm, Loud, Results, bodies
from helpers import until

from fsdf_engine import fates
from fsdf_engine.barrier import member_sink
from fsdf_engine.contracts import Group, Mark, Outgoing
from fsdf_engine.core import consumer as consumer_module
from fsdf_engine.core import worker as worker_module
from fsdf_engine.errors import Unavailable
from fsdf_engine.grouping import Grouping
from fsdf_engine.outcomes import Continued, Failed, Retry, Succeeded, TimedOut
from fsdf_engine.result_sink import result_sink
from fsdf_engine.stores.memory import MemoryStore

EARLY = {"early": True, "sinks": (result_sink(60.0),)}
LEASE = 0.3


@pytest.fixture(autouse=True)
def restless(monkeypatch):
    """An idle consumer looks again soon."""
    monkeypatch.setattr(consumer_module, "IDLE", 0.05)


@pytest.fixture
def leave(start):
    """`leave(broker, results)` -> the jobs of a worker that died before its acknowledgement came.

    Their leases end soon, and their mark has lapsed.
    """

    def leave(broker, results, **options):
        broker.publish(bodies(2))
        idle = start(Loud(), lambda n: None, queue="other").consumer
        plan = start(Loud(), lambda n: None, queue="idle", spec=EARLY).consumer.plans[""]
        subscription = broker.subscribe("q", lease=options.get("lease", 0.05))
        jobs = []
        for delivery in subscription.fetch(9, 1 << 20):
            extra = json.loads(delivery.body)["extra"]
            jobs.append(fates._job(extra["task_id"], "", 0, 0.0, extra,
                                   plan_of=lambda _: plan, owner=idle.outbox))  # fmt: skip
        results.marks().put([Mark("early:1:q:gone", fates.write(jobs), 0.01, watched=True)])
        return jobs

    return leave


def lost_in(results):
    return [id for id, record in results.records.items() if b'"lost"' in record.body]


def test_what_was_told_to_be_lost_does_not_run_when_it_comes_back(start, leave):
    broker, results, seen = Loud(), Results(), []
    leave(broker, results)
    start(Loud(), seen.append, spec=EARLY, results=results, lease=LEASE)  # sees the mark only
    until(lambda: lost_in(results) == ["0", "1"])
    start(broker, seen.append, spec=EARLY, results=results, lease=LEASE)
    until(lambda: broker.size("q").dead == 2)
    assert not seen
    assert results.statuses() == ["lost", "lost"]
    assert all("its worker was lost" in letter.reason for letter in broker.dead_letters("q", 9, 0))


def test_its_dead_letter_can_be_replayed(start, leave):
    broker, results, seen = Loud(), Results(), []
    leave(broker, results)
    start(Loud(), seen.append, spec=EARLY, results=results, lease=LEASE)
    until(lambda: lost_in(results) == ["0", "1"])
    start(broker, lambda n: seen.append(n), spec=EARLY, results=results, lease=LEASE)
    until(lambda: broker.size("q").dead == 2)
    broker.replay(
        "q", again=lambda body, headers: body.replace(b'"extra":{', b'"extra":{"sends":1,')
    )
    until(lambda: len(seen) == 2)
    until(lambda: results.statuses() == ["succeeded", "succeeded"])


def test_what_comes_back_and_runs_is_not_told_to_be_lost(start, leave):
    broker, results, seen = Loud(), Results(), []
    leave(broker, results)
    keep = results.marks().lapsed
    results.marks().lapsed = lambda *given: ()
    start(broker, lambda n: seen.append(n), spec=EARLY, results=results, lease=LEASE)
    until(lambda: len(seen) == 2 and len(results.records) == 2)
    results.records.clear()  # as if they still ran: only their fates tell of them
    results.marks().lapsed = keep
    until(lambda: not watched(results))
    assert not results.records


def watched(results):
    return [name for name, (_, mark) in list(results.marks()._kept.items()) if mark.watched]


def test_what_was_sent_anew_is_not_told_to_be_lost(start):
    """Nobody has the message but its queue, and its mark is still there."""
    broker, results = Loud(), Results()

    class Later:
        def outcome(self, error, attempt, timeout):
            return Retry(error, 600.0, attempt + 1)

    def fail(n):
        raise ValueError(n)

    broker.publish(bodies(2))
    handle = start(broker, fail, spec={**EARLY, "policy": Later()}, results=results, lease=LEASE)
    handle.consumer.keeper.tend = lambda: None
    until(lambda: broker.size("q").delayed == 2)
    until(lambda: not handle.consumer.held())
    assert watched(results)
    results.records.clear()
    start(Loud(), fail, spec=EARLY, results=results, lease=LEASE)
    until(lambda: not watched(results))
    assert not results.records


def test_a_run_that_has_no_end_to_tell_is_not_told_to_be_lost(start):
    broker, results = Loud(), Results()
    spec = {**EARLY, "runner": lambda job, fn: Continued()}
    broker.publish(bodies(2))
    handle = start(broker, lambda n: None, spec=spec, results=results, lease=LEASE)
    handle.consumer.keeper.tend = lambda: None
    until(lambda: handle.consumer.outbox.settled == 2 and not handle.consumer.held())
    assert watched(results)
    assert broker.size("q") == (0, 0, 0, 0)
    start(Loud(), lambda n: None, spec=EARLY, results=results, lease=LEASE)
    until(lambda: not watched(results))
    assert not results.records


def test_an_outage_between_the_two_questions_changes_nothing(start, leave):
    broker, results, seen = Loud(), Results(), []
    jobs = leave(broker, results, lease=60.0)
    marks, down = results.marks().read, [1, 1]

    def failing(names):
        if down:
            down.pop()
            raise Unavailable("down")
        return marks(names)

    results.marks().read = failing
    results.marks().put([fates.fate(fates.after(jobs[0])[0], fates.LIVES)])
    start(Loud(), seen.append, spec=EARLY, results=results, lease=LEASE)
    until(lambda: not watched(results))
    assert lost_in(results) == ["1"]
    assert not down


def test_the_one_who_is_first_decides():
    store = MemoryStore()
    assert fates.decide(store, ["a", "b"], fates.LOST) == set()
    assert fates.decide(store, ["a", "c"], fates.LIVES) == {"a"}
    assert fates.decide(store, ["a", "b"], fates.LOST) == set()  # a repeat
    assert fates.decide(store, ["a", "c"], fates.LOST, Mark("also")) == {"c"}
    assert "also" in store.marks().read(["also"])


# ------------------------------------------------------------------ groups


@pytest.mark.parametrize(
    ("outcome", "failed", "told"),
    [
        (Succeeded([1, 2.5, "ж"]), False, [1, 2.5, "ж"]),
        (Succeeded(None), False, None),
        (TimedOut(3.0), True, {"status": "timedout", "reason": "the run passed its limit of 3 s"}),
        (Failed(ValueError("no")), True, {"status": "failed", "reason": "ValueError: no"}),
    ],
)
def test_a_member_is_told_by_the_stored_end_as_by_its_run(start, leave, outcome, failed, told):
    [job, _] = leave(Loud(), Results())
    job.extra["group"] = ["g", 3]
    [record] = result_sink(60.0)(job, outcome)
    [member] = member_sink.of_end(job, record.body)
    [same] = member_sink(job, outcome)
    for each in (member, same):
        value = json.loads(each.body)
        shown = {key: value[key] for key in ("status", "reason")} if failed else value
        assert (each.group, each.id, each.place, each.failed, shown) == ("g", "3", 3, failed, told)


class Left:
    """Two members of a group whose worker is gone; the end of the first is stored."""

    def __init__(self, start):
        self.store, self.composed, sink = MemoryStore(), [], result_sink(60.0)
        self.spec = {"early": True, "sinks": (sink, member_sink)}
        self.grouping = Grouping(Loud(), self.store, "p", LEASE, self.compose)
        self.grouping.open([Group("g", Outgoing("then", "t", b""), 2)])
        idle = start(Loud(), lambda n: None, queue="idle", spec=self.spec).consumer
        jobs = [
            fates._job(str(n), "", 0, 0.0, {"task_id": str(n), "group": ["g", n]},
                       plan_of=lambda _: idle.plans[""], owner=idle.outbox)
            for n in range(2)
        ]  # fmt: skip
        self.store.write(sink(jobs[0], Succeeded("done")))
        self.store.marks().put([Mark("early:1:q:gone", fates.write(jobs), 0.01, watched=True)])

    def compose(self, done, refusal=""):
        self.composed.append([(member.failed, member.body) for member in done.members])
        return [Outgoing("then", done.id, b"")]

    def fail(self, monkeypatch, times):
        """Let the store be away when members are told."""
        groups, left = self.store.groups(), [1] * times
        add = groups.add

        def failing(members, claim):
            if left:
                left.pop()
                raise Unavailable("down")
            return add(members, claim)

        monkeypatch.setattr(groups, "add", failing)

    def marked(self):
        return "early:1:q:gone" in self.store.marks().read(["early:1:q:gone"])


def test_groups_learn_of_the_ends_that_a_lost_worker_had_stored(start, monkeypatch):
    """And of the others that they are lost."""
    left = Left(start)
    left.fail(monkeypatch, times=2)
    options = {"spec": left.spec, "results": left.store, "lease": LEASE}
    handle = start(Loud(), lambda n: None, **options)
    handle.consumer.outbox.join_groups(left.grouping)
    until(lambda: left.composed)
    [[first, second]] = left.composed
    assert first == (False, b'"done"')
    assert second[0]
    assert b"its worker was lost" in second[1]
    until(lambda: not left.marked())


def test_a_worker_that_stops_before_it_could_tell_leaves_that_to_the_next(start, monkeypatch):
    monkeypatch.setattr(worker_module, "FLUSH", 0.05)
    left = Left(start)
    with monkeypatch.context() as outage:
        left.fail(outage, times=10**6)
        options = {"spec": left.spec, "results": left.store, "lease": LEASE}
        handle = start(Loud(), lambda n: None, **options)
        handle.consumer.outbox.join_groups(left.grouping)
        until(lambda: "early:1:q:gone" in handle.consumer.marking._open)
        handle.stop()
        assert left.marked()
    other = start(Loud(), lambda n: None, **options)
    other.consumer.outbox.join_groups(left.grouping)
    until(lambda: left.composed)
    assert left.composed[0][0] == (False, b'"done"')


@pytest.mark.parametrize("told", [None, 5, [object()], KeyError("odd")])
def test_a_sink_that_tells_nonsense_of_an_end_tells_nobody(leave, told, caplog):
    def sink(job, outcome):
        return ()

    def of_end(job, end):
        if isinstance(told, Exception):
            raise told
        return told

    sink.of_end = of_end
    [job, _] = leave(Loud(), Results())
    job.plan = job.plan._replace(sinks=(sink, member_sink))
    job.extra["group"] = ["g", 0]
    [record] = result_sink(60.0)(job, Succeeded(1))
    [member] = fates.members_of(job, record.body)  # the other sink's
    assert (member.group, member.body) == ("g", b"1")


# ------------------------------------------------------------------ what is no JSON, or no row


def test_a_mark_that_tells_of_nothing_keeps_no_queue_waiting(start, caplog):
    broker, results, seen = Loud(), Results(), []
    values = [b"\xff", b"{}", b"[[1]]", b'[["a","",0,0.0,{}],7]']
    results.marks().put(
        [Mark(f"early:1:q:{n}", v, 0.01, watched=True) for n, v in enumerate(values)]
    )
    handle = start(broker, lambda n: seen.append(n), spec=EARLY, results=results, lease=LEASE)
    until(lambda: not watched(results))
    broker.publish(bodies(3))
    until(lambda: len(seen) == 3 and not handle.consumer.held())
    told = {r.args[0] for r in caplog.records if r.msg == "the mark %r tells of no messages"}
    assert told == {"early:1:q:0", "early:1:q:2", "early:1:q:3"}


def test_a_layout_that_the_store_does_not_know_keeps_no_queue_waiting(start, leave):
    def sink(job, outcome):
        return [replace(record, layout="unknown") for record in result_sink(60.0)(job, outcome)]

    broker, store, seen = Loud(), MemoryStore(), []
    leave(Loud(), store)
    spec = {**EARLY, "sinks": (sink,)}
    handle = start(broker, lambda n: seen.append(n), spec=spec, results=store, lease=LEASE)
    until(lambda: not store.marks().read(["early:1:q:gone"]))
    broker.publish(bodies(3))
    until(lambda: len(seen) == 3 and not handle.consumer.held())


@pytest.mark.parametrize("odd", [object(), {"nested": {1j}}, "\ud800"])
def test_control_data_that_is_no_json_keeps_no_message_from_running(start, odd):
    class OddForm(ListForm):
        def envelope(self, body, headers):
            extra, kept = super().envelope(body, headers)
            return {**extra, "headers": odd}, kept

    broker, results, seen = Loud(), Results(), []
    options = {"spec": EARLY, "results": results, "lease": LEASE, "codecs": (OddForm(),)}
    handle = start(broker, lambda n: seen.append(n), **options)
    broker.publish([Outgoing("q", "a", b'[{"task_id": "a"}, [1]]')])
    until(lambda: seen == [1] and not handle.consumer.held())
    assert results.statuses() == ["succeeded"]


def test_of_control_data_that_is_no_json_what_names_its_fate_is_kept(start, leave):
    [job, _] = leave(Loud(), Results())
    job.extra = {"task_id": job.id, "sends": 2, "headers": object()}
    mark = Mark("m", fates.write([job]))
    [same] = fates.read(mark, lambda name: job.plan, job.owner)
    assert (same.id, fates.after(same)) == (job.id, fates.after(job))
