"""Waiters always learn the end: replays, odd errors, foreign messages, lost connections."""

from __future__ import annotations

import json
import threading

import pytest
from helpers import BOUND, until

from fsdf_engine import TaskFailed, default_engine, task_deco
from fsdf_engine.brokers import redis_queue
from fsdf_engine.contracts import Outgoing
from fsdf_engine.message import FLAT
from fsdf_engine.outcomes import DeadLetter

MEMORY = {"broker_kind": "memory", "is_using_rpc_mode": True}


# ------------------------------------------------------------------ replays


def lives(body):
    extra = json.loads(body)["extra"]
    return extra.get("sends"), extra.get("attempt")


def test_each_replay_counts_a_life_and_forgets_the_attempts():
    body = b'{"n":1,"extra":{"task_id":"a","attempt":3,"publish_time":1.5}}'
    once = FLAT.replayed(body)
    assert lives(once) == (1, None)
    assert lives(FLAT.replayed(once)) == (2, None)
    assert json.loads(once)["extra"]["publish_time"] == 1.5


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":3}', b'{"extra":5}', b'{"extra":"task_id"}', b'{"extra":{"x":1}}', b"[1]", b"\xff",
        b"", b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_message_of_ours_is_replayed_as_it_is(body):
    assert FLAT.replayed(body) == body


@pytest.mark.parametrize("sends", ["x", -1, 1 << 40, None, True, [1]])
def test_a_senseless_count_of_lives_begins_anew(sends):
    body = json.dumps({"extra": {"task_id": "a", "sends": sends}}).encode()
    assert lives(FLAT.replayed(body)) == (1, None)


def test_a_replayed_body_keeps_its_values():
    text = '{"n":123456789012345678901234567890,"f":0.1,"t":"\\ud800漢","extra":{"task":"t"}}'
    data = json.loads(FLAT.replayed(text.encode()))
    assert data.pop("extra") == {"task": "t", "sends": 1}
    assert data == {"n": 123456789012345678901234567890, "f": 0.1, "t": "\ud800漢"}


@pytest.mark.parametrize("kind", ["rabbitmq_pika", "sqlite"])
def test_results_that_stay_on_this_machine_are_told_where_messages_do_not(kind, caplog):
    task = task_deco("told", broker_kind=kind)(lambda: None)
    default_engine().replies(task.options)
    told = [record.getMessage() for record in caplog.records if "keeps no results" in record.msg]
    assert [text.split()[0] for text in told] == ([kind] if kind != "sqlite" else [])


BROKERS = ["memory", "sqlite", "redis", "redis_ack", "redis_stream", "redis_brpoplpush"]


@pytest.fixture(params=BROKERS)
def kind(request, monkeypatch):
    if request.param.startswith("redis"):
        monkeypatch.setenv("FSDF_REDIS_URL", request.getfixturevalue("redis_url"))
    return request.param


def test_the_result_of_a_replay_replaces_what_a_message_left_that_had_lost_leases(
    kind, monkeypatch
):
    broken = [True]

    @task_deco("again", broker_kind=kind, is_using_rpc_mode=True, max_retry_times=0)
    def work(n):
        if broken:
            raise ValueError("a bug")
        return "right"

    store = default_engine().replies(work.options).store
    write = store.write

    def of_many_deliveries(records):
        for record in records:
            record.deliveries = 0 if record.sends else 6
        write(records)

    monkeypatch.setattr(store, "write", of_many_deliveries)
    result = work.push(1)
    work.consume()
    with pytest.raises(TaskFailed, match="a bug"):
        result.get(BOUND)
    broken.clear()
    until(lambda: work.replay() == 1)

    def status():
        return default_engine().result(result.task_id, work.options).status

    until(lambda: status() == "succeeded")


def test_many_dead_letters_are_replayed_each_with_its_new_body(kind):
    task = task_deco("many", broker_kind=kind)(lambda: None)
    bare, ours = b'{"n":%d}', b'{"n":%d,"extra":{"task_id":"%d"}}'
    broker = default_engine().broker(kind)
    broker.publish([Outgoing("many", "", bare % n) for n in range(110)])
    broker.publish([Outgoing("many", "", ours % (n, n)) for n in range(110)])
    task.consume()  # takes no `n`: all are invalid
    until(lambda: task.size().dead == 220)
    default_engine().stop()
    before = {letter.id for letter in task.dead_letters(300)}
    assert task.replay() == 220
    assert task.replay() == 0
    task.consume()
    until(lambda: task.size().dead == 220)
    letters = task.dead_letters(300)
    assert sum(b'"sends":1' in letter.body for letter in letters) == 110
    assert not before & {letter.id for letter in letters}


@pytest.mark.parametrize("kind", BROKERS[2:], indirect=True)
def test_a_replay_of_all_ends_although_they_die_again_at_once(kind, monkeypatch):
    monkeypatch.setattr(redis_queue, "PAGE", 2)
    broker = default_engine().broker(kind)
    sub = broker.subscribe("dying", lease=BOUND)

    def die():
        until(lambda: [sub.settle([(d.lease, DeadLetter(""))]) for d in sub.fetch(9, 1 << 20)])

    def again(body, headers):
        broker.publish([Outgoing("dying", "", b"{}")])
        die()  # and with it what was replayed before
        return body

    for _ in range(5):
        broker.publish([Outgoing("dying", "", b"{}")])
        die()
    assert broker.replay("dying", again=again) == 5
    assert sum(broker.size("dying")) == 10
    sub.close()


def test_the_result_of_a_lost_message_is_told_and_replaced_by_its_replay():
    @task_deco("lost", **MEMORY)
    def work(n):
        return n

    result = work.push(5)
    killed = default_engine().broker("memory").subscribe("lost", lease=0.01)
    for _ in range(6):  # workers that died with it
        until(lambda: killed.fetch(1, 1 << 20))
    until(lambda: work.size().waiting)
    work.consume()
    with pytest.raises(TaskFailed, match="lease was lost 6 times") as caught:
        result.get(BOUND)
    assert caught.value.status == "lost"
    until(lambda: work.replay() == 1)

    def status():
        return default_engine().result(result.task_id, work.options).status

    until(lambda: status() == "succeeded")


def test_what_a_replayed_run_pushes_are_messages_of_their_own():
    ids, fail = [], [True]
    child = task_deco("child", **MEMORY)(lambda n: n)

    @task_deco("parent", max_retry_times=0, **MEMORY)
    def parent(n):
        ids.append(child.push(n).task_id)
        if fail:
            raise ValueError

    parent.push(1)
    parent.consume()
    until(lambda: parent.size().dead == 1)
    fail.clear()
    assert parent.replay() == 1
    until(lambda: len(ids) == 2)
    assert len(set(ids)) == 2


def test_a_message_that_claims_anothers_id_does_not_replace_its_result():
    task = task_deco("claimed", **MEMORY)(lambda n: n)
    task.consume()
    mine = task.push(1)
    assert mine.get(BOUND) == 1
    forged = {"n": 2, "extra": {"task_id": mine.task_id, "sends": 9, "publish_time": 5.0}}
    default_engine().broker("memory").publish(
        [Outgoing("claimed", "", json.dumps(forged).encode())]
    )
    assert task.join(BOUND)
    assert default_engine().result(mine.task_id, task.options).get(BOUND) == 1


# ------------------------------------------------------------------ results that are too large


@pytest.mark.parametrize("broker", ["redis_ack", "redis_stream", "redis"])
def test_a_result_above_the_servers_limit_fails_alone(own_redis, broker):
    server = own_redis(config={"proto-max-bulk-len": str(1 << 20)})

    @task_deco("large", broker_kind=broker, broker_url=server.url, is_using_rpc_mode=True)
    def work(n):
        return "r" * 2_000_000 if n == 0 else n

    results = work.push_many((n,) for n in range(101))
    work.consume()
    assert [result.get(BOUND) for result in results[1:]] == list(range(1, 101))
    with pytest.raises(TaskFailed, match="an effect failed 5 times") as caught:
        results[0].get(BOUND)
    assert caught.value.kind == "fsdf_engine.errors.ArgumentError"
    until(lambda: work.size() == (0, 0, 0, 1))


# ------------------------------------------------------------------ messages that cannot run


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"task": "nobody's"}, "unknown"),
        ({"attempt": -1}, "invalid"),
        ({"attempt": "x"}, "invalid"),
        ({"publish_time": "never"}, "invalid"),
        ({"args": 5}, "invalid"),
        ({"sends": [], "headers": 5}, "succeeded"),
    ],
)
def test_whoever_waits_for_a_message_that_names_its_id_learns_what_is_wrong_with_it(change, status):
    task = task_deco("named", name="t", **MEMORY)(lambda n: n)
    replies = default_engine().replies(task.options)
    extra = {"task_id": "mine", "task": "t", "reply": replies.address, **change}
    replies.expect(["mine"], 0.0)  # its notice is all we go by
    body = json.dumps({"n": 1, "extra": extra}).encode()
    default_engine().broker("memory").publish([Outgoing("named", "", body)])
    task.consume()
    told = json.loads(replies.wait("mine", BOUND, ""))
    assert told["status"] == status


@pytest.mark.parametrize("reply", [None, 5, ["x"], {"a": 1}, "", "x" * 10_000, "\n"])
def test_a_reply_that_is_no_address_harms_no_result(kind, reply):
    task = task_deco("reply", broker_kind=kind, is_using_rpc_mode=True)(lambda n: n)
    body = json.dumps({"n": 1, "extra": {"task_id": "a", "reply": reply}}).encode()
    default_engine().broker(kind).publish([Outgoing("reply", "", body)])
    task.consume()
    until(lambda: default_engine().result("a", task.options).status == "succeeded")


# ------------------------------------------------------------------ many at once


def test_results_of_many_come_as_they_end_and_once_each(kind):
    task = task_deco("many", broker_kind=kind, is_using_rpc_mode=True)(lambda n: n)
    replies = default_engine().replies(task.options)
    known = [task.push(n).task_id for n in range(5)]
    unknown = default_engine().remote("many", broker_kind=kind)  # keeps no results here
    ids = [*known, *(unknown.send([], {"n": n}).task_id for n in (5, 6))]
    task.consume()
    found = dict(replies.each([*ids, ids[0]], BOUND))
    assert {id: json.loads(body)["result"] for id, body in found.items()} == dict(
        zip(ids, range(7))
    )
    again = dict(replies.each(ids, BOUND))  # nobody waits for what is stored
    assert again.keys() == found.keys()


def test_who_waits_for_many_gets_those_that_have_ended_in_time():
    task = task_deco("some", name="t", **MEMORY)(lambda n: n)
    replies = default_engine().replies(task.options)
    ended = task.push(1)
    task.consume()
    ended.get(BOUND)
    assert [id for id, _ in replies.each([ended.task_id, "never"], 0.05)] == [ended.task_id]


def test_who_waits_for_many_is_told_that_nothing_comes_any_more():
    engine = default_engine()
    replies = engine.replies(engine.remote("none", **MEMORY).options)
    each = replies.each(["a", "b"], BOUND)
    threading.Timer(0.05, engine.close).start()
    assert sorted(each) == [("a", b""), ("b", b"")]
