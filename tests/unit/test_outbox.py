"""The outbox: order of effects, commits, and what happens when a server fails."""

from __future__ import annotations

import threading

import pytest
from doubles import Loud, Results, bodies
from helpers import BOUND, until

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Claim, Group, Member, Outgoing, Record
from fsdf_engine.core import outbox as outbox_module
from fsdf_engine.core.context import current_job
from fsdf_engine.errors import LeaseLost, PublishError, Unanswered, Unavailable
from fsdf_engine.grouping import Grouping
from fsdf_engine.listeners import Listeners
from fsdf_engine.result_sink import result_sink
from fsdf_engine.stores.memory import MemoryStore

SINKS = {"sinks": (result_sink(60.0),)}


def settled(handle, count):
    """Wait for so many ends; what waited long for a slot was given back, which is one, too."""
    outbox = handle.consumer.outbox

    def done():
        parts = outbox.broker.size(handle.queue)
        return outbox.settled >= count and not handle.consumer.held() and not parts.waiting

    until(done)


def follow(job, outcome):
    return [Record(job.id, b"{}"), Outgoing("next", job.id, b"{}")]


def test_order_of_a_commit_is_publishes_results_settle(start):
    log = []
    broker, results = Loud(log), Results(log)
    broker.publish(bodies(1))
    handle = start(broker, lambda n: None, spec={"sinks": (follow,)}, results=results)
    settled(handle, 1)
    assert [type(entry) for entry in log[1:]] == [Outgoing, Record, tuple]


def writers(results, more=lambda: None):
    """Return the names of the threads that write results, in order; `more` is called by them."""
    names, write = [], results.write

    def noted(records):
        names.append(threading.current_thread().name)
        more()
        return write(records)

    results.write = noted
    return names


def rested(handle):
    """Wait until nothing is being stored."""
    until(lambda: handle.consumer.outbox._parked)
    return handle


def test_a_slot_that_is_not_needed_stores_how_its_run_ended(start):
    broker, results = Loud([]), Results([])
    names = writers(results)
    handle = rested(start(broker, lambda n: None, spec={"sinks": (follow,)}, results=results))
    for n in range(5):
        broker.publish(bodies(1))
        settled(handle, n + 1)
    assert names == ["fsdf-slot"] * 5


def test_while_a_slot_stores_the_outbox_stores_for_the_others_and_waits_for_it(start):
    broker, results, first, go = Loud([]), Results([]), threading.Event(), threading.Event()

    def hang():
        if not first.is_set():
            first.set()
            assert go.wait(BOUND)

    names = writers(results, hang)
    handle = rested(start(broker, lambda n: None, spec={"sinks": (follow,)}, results=results))
    broker.publish(bodies(1))
    assert first.wait(BOUND)
    broker.publish(bodies(7))
    outbox = handle.consumer.outbox
    until(lambda: outbox.last_ended() == 8)
    closing = threading.Thread(target=lambda: outbox.close(BOUND))
    closing.start()
    assert outbox.settled == 0
    go.set()
    closing.join(BOUND)
    assert outbox.settled == 8
    assert broker.size("next").waiting == 8
    assert names[0] == "fsdf-slot"
    assert set(names[1:]) == {"fsdf-outbox"}


def test_what_a_slot_could_not_store_the_outbox_repeats(start):
    broker, results, errors = Loud([]), Results([]), [Unavailable("down")] * 2

    def fail():
        if errors:
            raise errors.pop()

    names = writers(results, fail)
    handle = rested(start(broker, lambda n: None, spec={"sinks": (follow,)}, results=results))
    broker.publish(bodies(1))
    settled(handle, 1)
    assert names == ["fsdf-slot", "fsdf-outbox", "fsdf-outbox"]
    assert broker.size("next").waiting == 1


def test_who_listens_to_ends_hears_of_them_from_the_outbox(start):
    broker, results, heard = Loud([]), Results([]), []
    listeners = Listeners()
    listeners.add("run_ended", lambda job, outcome: heard.append(threading.current_thread().name))
    spec = {"sinks": (follow,)}
    handle = start(broker, lambda n: None, spec=spec, results=results, listeners=listeners)
    broker.publish(bodies(1))
    settled(handle, 1)
    assert heard == ["fsdf-outbox"]


def grouped(broker, log):
    """Return a store that logs what is added to groups, and what takes part in them."""
    store = MemoryStore()
    groups = store.groups()
    groups.open([Group("g", Outgoing("next", "body", b"{}"), 1)], Claim("p", "me", 60.0))
    for name in ("add", "close"):
        call = getattr(groups, name)
        logged = lambda *a, name=name, call=call: (log.append(name), call(*a))[1]  # noqa: E731
        setattr(groups, name, logged)
    compose = lambda done, refusal: [done.body]  # noqa: E731
    return Grouping(broker, store, "p", 60.0, compose)


def test_members_are_told_after_the_results_and_before_the_settling(start):
    log = []
    broker, results = Loud(log), Results(log)
    sink = lambda job, outcome: [*follow(job, outcome), Member("g", job.id, b"")]  # noqa: E731
    handle = start(broker, lambda n: None, spec={"sinks": (sink,)}, results=results)
    handle.consumer.outbox.join_groups(grouped(broker, log))
    broker.publish(bodies(1))
    settled(handle, 1)
    told = [getattr(entry, "id", entry) for entry in log[1:]]
    assert told[:5] == ["0", "0", "add", "body", "close"]
    assert [type(entry) for entry in log[1:]] == [Outgoing, Record, str, Outgoing, str, tuple]


def test_what_was_published_is_not_published_again_for_a_group_that_is_down(start):
    log = []
    broker, results = Loud(log), Results(log)
    groups = grouped(broker, log)
    add, errors = groups.add, [Unavailable("down")] * 3

    def failing(members):
        if errors:
            raise errors.pop()
        add(members)

    groups.add = failing
    sink = lambda job, outcome: [*follow(job, outcome), Member("g", job.id, b"")]  # noqa: E731
    handle = start(broker, lambda n: None, spec={"sinks": (sink,)}, results=results)
    handle.consumer.outbox.join_groups(groups)
    broker.publish(bodies(20))
    settled(handle, 20)
    assert not errors
    assert broker.size("next").waiting == 21


def test_a_member_that_cannot_be_told_is_a_dead_letter_and_harms_no_other(start):
    log = []
    broker, results = Loud(log), Results(log)
    groups = grouped(broker, log)
    add = groups.add

    def picky(members):
        if any(member.id == "7" for member in members):
            raise ValueError("no")
        add(members)

    groups.add = picky
    spec = {"sinks": (lambda job, outcome: [Member("g", job.id, b"")],)}
    handle = start(broker, lambda n: None, spec=spec, results=results)
    handle.consumer.outbox.join_groups(groups)
    broker.publish(bodies(20))
    settled(handle, 20)
    [dead] = broker.dead_letters("q")
    assert dead.reason == "an effect failed 5 times: ValueError('no')"


def test_a_run_commits_in_its_middle(start):
    broker, seen = MemoryBroker(), []

    def fn(n):
        job = current_job.get()
        job.owner.commit(job, [Outgoing("next", f"{n}", b"{}")])
        seen.append(broker.size("next").waiting)

    async def afn(n):
        job = current_job.get()
        await job.owner.acommit(job, [Outgoing("next", f"{n}", b"{}")])
        seen.append(broker.size("next").waiting)

    for f in (fn, afn):
        handle = start(broker, f)
        broker.publish(bodies(50))
        settled(handle, 50)
        handle.stop()
    assert len(seen) == 100 == broker.size("next").waiting
    assert min(seen) >= 1


def test_settle_down_under_load_holds_the_limit_and_loses_nothing(start):
    broker = Loud()
    broker.broken = True
    broker.publish(bodies(5000))
    consumer = start(broker, lambda n: None, ceiling=50).consumer
    until(lambda: consumer.held() >= 54)  # size + ceiling: what it takes from a silent outbox
    began = consumer.outbox.flushes
    until(lambda: consumer.outbox.flushes >= began + 3)
    assert consumer.most_held <= consumer.hard == 104
    assert broker.size("q").waiting >= 5000 - 104
    broker.broken = False
    until(lambda: consumer.outbox.settled == 5000)
    assert broker.size("q") == (0, 0, 0, 0)


def test_results_down_stops_fetching_and_loses_nothing(start):
    broker, results = MemoryBroker(), Results()
    results.broken = lambda records: Unavailable("down")
    broker.publish(bodies(3000))
    handle = start(broker, lambda n: None, spec=SINKS, results=results, ceiling=50)
    until(lambda: handle.consumer.outbox.flushes >= 4)
    assert broker.size("q").waiting >= 3000 - 104
    results.broken = None
    settled(handle, 3000)
    assert len(results.records) == 3000


def test_extend_down_when_leases_are_unconfirmed_repeats_the_flush(start, caplog):
    broker = Loud()
    handle = start(broker, lambda n: None)
    keeper = handle.consumer.keeper
    keeper._confirmed = -1e9  # as after a SIGSTOP
    errors, extend = [Unavailable("down")] * 3, keeper.extend

    def failing():
        if errors:
            raise errors.pop()
        extend()

    keeper.extend = failing
    broker.publish(bodies(100))
    settled(handle, 100)
    assert not errors
    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert told.count("leases cannot be renewed, it is tried again") == 1
    assert len([text for text in told if text.startswith("cannot store what")]) == 1


def test_an_outage_is_told_of_leases_only_once_they_may_have_ended(start, caplog):
    keeper = start(MemoryBroker(), lambda n: None, lease=3600.0).consumer.keeper

    def failing():
        raise Unavailable("down")

    def told():
        for _ in range(3):
            with pytest.raises(Unavailable):
                keeper.confirm(anew=True)
        return [record.getMessage() for record in caplog.records if record.name == "fsdf.lease"]

    keeper.extend = failing
    assert told() == []
    keeper._confirmed = -1e9
    assert told() == ["leases cannot be renewed, it is tried again: down"]


def test_publishes_are_not_repeated_when_results_fail(start):
    broker, results, failures = Loud(), Results(), [1, 1, 1]
    results.broken = lambda records: Unavailable("down") if failures and failures.pop() else None
    broker.publish(bodies(20))
    handle = start(broker, lambda n: None, spec={"sinks": (follow,)}, results=results)
    settled(handle, 20)
    assert broker.size("next").waiting == 20


def test_one_bad_effect_is_isolated_and_ends_as_a_dead_letter(start):
    broker, results = MemoryBroker(), Results()
    results.broken = lambda rs: ValueError("600 MB") if any(r.id == "13" for r in rs) else None
    broker.publish(bodies(40))
    handle = start(broker, lambda n: None, spec=SINKS, results=results)
    settled(handle, 40)
    assert len(results.records) == 39
    [letter] = broker.dead_letters("q")
    assert "600 MB" in letter.reason


def test_a_message_that_the_broker_rejects_fails_the_run_that_pushed_it(start):
    broker, caught = MemoryBroker(), []
    publish = broker.publish

    def refusing(batch):
        if bad := [item for item in batch if item.id == "bad"]:
            raise PublishError(bad)
        publish(batch)

    broker.publish = refusing

    def fn(n):
        job = current_job.get()
        with pytest.raises(PublishError) as error:
            job.owner.commit(job, [Outgoing("next", "bad", b"{}")])
        caught.append(error.value)

    publish(bodies(1))
    settled(start(broker, fn), 1)
    assert len(caught) == 1


def test_outcome_and_follow_ups_of_a_lost_lease_are_dropped(start):
    broker, results, go, errors = Loud(), Results(), threading.Event(), []
    broker.publish(bodies(1))

    def fn(n):
        go.wait(BOUND)
        job = current_job.get()
        try:
            job.owner.commit(job, [Outgoing("next", "1", b"{}")])
        except LeaseLost as error:
            errors.append(error)

    handle = start(broker, fn, spec=SINKS, results=results, lease=0.3)
    consumer = handle.consumer
    until(lambda: consumer.held() == 1)
    broker.lose = True
    until(lambda: consumer.keeper.lost)
    go.set()
    settled(handle, 1)
    assert errors
    assert not results.records
    assert broker.size("next").waiting == 0
    assert not [entry for entry in broker.log if type(entry) is tuple]
    assert not consumer.keeper.held | consumer.keeper.lost


def test_early_ack_is_stored_before_the_run_and_its_retry_is_a_new_message(start):
    log, seen = [], []
    broker = Loud(log)

    def fn(n):
        seen.append((current_job.get().attempt, broker.size("q")))
        if len(seen) == 1:
            from fsdf_engine.errors import Retry

            raise Retry(delay=1.01)

    broker.publish(bodies(1))
    handle = start(broker, fn, spec={"early": True})
    settled(handle, 2)
    assert seen == [(0, (0, 0, 0, 0)), (1, (0, 0, 0, 0))]


def test_a_result_without_json_form_is_a_failure_that_says_so(start):
    broker, results = MemoryBroker(), Results()
    broker.publish(bodies(1))
    settled(start(broker, lambda n: object(), spec=SINKS, results=results), 1)
    assert results.told("0")["status"] == "failed"
    assert "cannot be stored" in broker.dead_letters("q")[0].reason


# ------------------------------------------------------------------ one at fault among others


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(outbox_module, "BACKOFF", (0.01,))


def test_a_result_that_the_server_does_not_answer_to_keeps_no_other_back(start, quick):
    """As where a result above its limit makes it drop the connection."""
    broker, results = MemoryBroker(), Results()
    too_large = lambda rs: any(len(r.body) > 10_000 for r in rs)  # noqa: E731
    results.broken = lambda rs: Unanswered("gone") if too_large(rs) else None
    broker.publish(bodies(101))
    handle = start(broker, lambda n: "x" * 20_000 if n == 50 else n, spec=SINKS, results=results)
    until(lambda: len(results.records) == 101)
    settled(handle, 101)
    assert results.statuses() == ["failed"] + ["succeeded"] * 100
    assert results.told("50")["error"]["type"] == "ArgumentError"
    assert "gone" in results.told("50")["reason"]
    [letter] = broker.dead_letters("q")
    assert letter.body == b'{"n":50,"extra":{"task_id":"50"}}'
    assert "gone" in letter.reason


def test_several_at_fault_are_each_found(start, quick):
    broker, results = MemoryBroker(), Results()
    bad = {"0", "7", "8", "99"}
    results.broken = lambda rs: (
        Unanswered("gone") if any(r.id in bad and b"succeeded" in r.body for r in rs) else None
    )
    broker.publish(bodies(100))
    handle = start(broker, lambda n: n, spec=SINKS, results=results)
    settled(handle, 100)
    assert {letter.body for letter in broker.dead_letters("q")} == {
        item.body for item in bodies(100) if item.id in bad
    }
    assert results.statuses() == ["failed"] * 4 + ["succeeded"] * 96


@pytest.mark.parametrize("error", [Unanswered, Unavailable])
def test_an_outage_blames_nobody_however_long_it_is(start, quick, error):
    broker, results = MemoryBroker(), Results()
    results.broken = lambda records: error("down")
    broker.publish(bodies(20))
    handle = start(broker, lambda n: None, spec=SINKS, results=results)
    outbox = handle.consumer.outbox
    until(lambda: outbox.flushes >= 8)
    assert not broker.size("q").dead
    results.broken = None
    settled(handle, 20)
    assert results.statuses() == ["succeeded"] * 20
    until(lambda: not outbox._suspects | outbox._given_up)


def test_a_server_that_answers_but_is_full_blames_nobody(start, quick):
    broker, results = MemoryBroker(), Results()
    results.broken = lambda records: Unavailable("OOM") if records else None
    broker.publish(bodies(20))
    handle = start(broker, lambda n: None, spec=SINKS, results=results)
    until(lambda: handle.consumer.outbox.flushes >= 8)
    results.broken = None
    settled(handle, 20)
    assert results.statuses() == ["succeeded"] * 20
    assert not broker.size("q").dead


def test_a_follow_up_that_the_broker_does_not_answer_to_keeps_no_other_back(start, quick):
    class Dropping(MemoryBroker):
        def publish(self, batch):
            if any(o.queue == "next" and o.id == "13" for o in batch):
                raise PublishError([], batch)
            super().publish(batch)

    broker, results = Dropping(), Results()

    def follow(job, outcome):
        return [Outgoing("next", job.id, b"{}")]

    broker.publish(bodies(40))
    spec = {"sinks": (follow, result_sink(60.0))}
    settled(start(broker, lambda n: None, spec=spec, results=results), 40)
    assert broker.size("next").waiting == 39
    assert broker.size("q") == (0, 0, 0, 1)
    assert results.statuses() == ["failed"] + ["succeeded"] * 39


def test_a_message_whose_end_cannot_be_stored_in_any_way_ends_as_a_dead_letter(start, quick):
    broker, results = MemoryBroker(), Results()
    results.broken = lambda rs: Unanswered("gone") if any(r.id == "3" for r in rs) else None
    broker.publish(bodies(10))
    settled(start(broker, lambda n: n, spec=SINKS, results=results), 10)
    assert len(results.records) == 9
    assert len(broker.dead_letters("q")) == 1
