"""Publishing, storing and acknowledging in one round trip, where one Redis has it all."""

from __future__ import annotations

import pytest
import redis as client
from helpers import BOUND, until

from fsdf_engine import default_engine, task_deco
from fsdf_engine.contracts import Mark, Outgoing, Record
from fsdf_engine.errors import PublishError, Unanswered, Unavailable
from fsdf_engine.stores.redis import RedisStore


@pytest.fixture
def leased(broker):
    """A subscription, and the leases of two messages."""
    broker.publish([Outgoing("q", str(n), b"{}") for n in range(2)])
    subscription = broker.subscribe("q", lease=15.0)
    yield subscription, [delivery.lease for delivery in subscription.fetch(10, 1 << 20)]
    subscription.close()


def message(queue="next", **more):
    return Outgoing(queue, "m", b'{"n":1}', **more)


def test_all_is_done_and_told(broker, store, leased, redis_url):
    subscription, leases = leased
    together = store.together(subscription)
    assert together is not None
    records = [Record("a", b'{"a":1}'), Record("b", b'{"b":1}')]
    assert together([message(), message()], records, leases) == (3, [])
    assert broker.size("next").waiting == 2
    assert broker.size("q") == (0, 0, 0, 0)
    assert store.read(["a", "b"], final=True) == {"a": b'{"a":1}', "b": b'{"b":1}'}
    assert together([], [Record("c", b"{}")], leases) == (3, leases)  # lost by now, and named
    assert together([message()], [], []) == (3, [])


def test_marks_are_put_if_they_are_absent(broker, store, leased):
    subscription, leases = leased
    marks = [Mark("group", b"its jobs", 60.0, watched=True), Mark("fate", b"lives", 60.0)]
    assert store.together(subscription)([], [], leases[:1], marks) == (3, [])
    assert store.together(subscription)([], [], leases[1:], [Mark("fate", b"lost")]) == (3, [])
    assert store.marks().read(["group", "fate"]) == {"group": b"its jobs", "fate": b"lives"}
    assert store.marks().renew(["group", "fate"], 0.001) == ["group", "fate"]
    until(lambda: store.marks().lapsed(60.0), BOUND)
    until(lambda: list(store.marks().read(["group", "fate"])) == ["group"], BOUND)
    assert broker.size("q") == (0, 0, 0, 0)


@pytest.mark.parametrize("lost", [False, True])
def test_marks_that_have_ended_go_with_what_is_sent_next(
    broker, store, leased, redis_url, monkeypatch, lost
):
    together, marks = store.together(leased[0]), store.marks()
    marks.put([Mark(name, watched=True) for name in ("a", "b", "c")])
    marks.delete_soon(["a", "b"])
    assert len(marks.read(["a", "b"])) == 2
    if lost:
        monkeypatch.setattr(store, "connection", lambda: raising(Unanswered("nothing came")))
        with pytest.raises(Unavailable):
            together([], [], [], [Mark("d")])
        monkeypatch.undo()
        assert len(marks.read(["a", "b"])) == 2
        assert marks.delete(["c"]) == 1
    else:
        assert together([], [], [], [Mark("d")]) == (3, [])
    assert marks.read(["a", "b"]) == {}
    with client.Redis.from_url(redis_url) as server:
        assert not {b"a", b"b"} & set(server.zrange("fsdf:marks:watched", 0, -1))


class raising:
    """A connection on which nothing gets through."""

    def __init__(self, error):
        self._error = error

    def exchange(self, commands):
        raise self._error


def test_it_is_one_round_trip_and_one_command(broker, store, leased, redis_url):
    subscription, leases = leased
    together = store.together(subscription)
    together([], [Record("warm", b"{}")], [])
    with client.Redis.from_url(redis_url) as server:
        server.config_resetstat()
        together([message()], [Record("a", b"{}")], leases)
        assert server.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
        assert server.info("stats")["total_commands_processed"] < 20


def test_a_message_that_is_refused_keeps_all_that_follows_from_being_done(
    broker, store, leased, redis_url
):
    subscription, leases = leased
    with client.Redis.from_url(redis_url) as server:
        server.set("next", "no list")
        assert store.together(subscription)([message()], [Record("a", b"{}")], leases) == (0, [])
        server.delete("next")
    assert store.read(["a"]) == {}
    assert broker.size("q").leased == 2


def test_a_result_that_is_refused_keeps_its_message_leased(broker, store, leased):
    subscription, leases = leased
    with client.Redis.from_url(store.url) as server:
        server.lpush("fsdf:result:a", "no result")
        together = store.together(subscription)
        assert together([message()], [Record("a", b"{}")], leases) == (1, [])
    assert broker.size("next").waiting == 1
    assert broker.size("q").leased == 2


def test_an_older_end_is_not_stored_and_the_others_are_told(broker, store, leased):
    subscription, leases = leased
    store.write([Record("old", b"kept", sends=2)])
    heard = []
    inbox = store.inbox(lambda id, body: heard.append((id, body)), lambda: [])
    try:
        until(lambda: inbox.address, BOUND)
        records = [
            Record("old", b"older", sends=1, reply=inbox.address),
            Record("new", b"new", reply=inbox.address),
        ]
        until(lambda: _told(store, inbox, heard), BOUND)
        assert store.together(subscription)([], records, leases) == (3, [])
        until(lambda: ("new", b"new") in heard, BOUND)
    finally:
        inbox.close()
    assert "old" not in dict(heard)
    assert store.read(["old", "new"]) == {"old": b"kept", "new": b"new"}


def _told(store, inbox, heard):
    """Say whether the inbox hears by now."""
    store.write([Record("first", b"1", reply=inbox.address)])
    return heard


@pytest.mark.parametrize(
    "messages",
    [[message(priority=3)], [message(delay=1.0)], [message(), message("elsewhere")]],
    ids=["of a priority", "delayed", "to two queues"],
)
def test_what_it_takes_no_part_of_is_left_alone(broker, store, leased, messages):
    subscription, leases = leased
    assert store.together(subscription)(messages, [Record("a", b"{}")], leases) == (0, ())
    assert store.read(["a"]) == {}
    assert broker.size("q").leased == 2


def test_stores_that_lie_elsewhere_take_no_part(broker, leased, redis_url, own_redis):
    subscription, _ = leased
    elsewhere = own_redis()
    assert RedisStore(elsewhere.url).together(subscription) is None
    assert (
        RedisStore(redis_url.replace("redis://", "redis://user:word@")).together(subscription)
        is None
    )


def test_an_answer_that_does_not_come_leaves_what_is_published_unknown(
    broker, store, leased, monkeypatch
):
    subscription, leases = leased
    together, sent = store.together(subscription), message()

    def silent(*_):
        raise Unanswered("nothing came")

    monkeypatch.setattr(store.connection(), "exchange", silent)
    with pytest.raises(PublishError) as told:
        together([sent], [Record("a", b"{}")], leases)
    assert (told.value.rejected, told.value.unknown) == ((), [sent])
    with pytest.raises(Unavailable):
        together([], [Record("a", b"{}")], leases)


@pytest.mark.parametrize("ack", ["late", "early"])
def test_lone_messages_end_so(redis_url, monkeypatch, ack):
    monkeypatch.setenv("FSDF_REDIS_URL", redis_url)
    told = []
    together = RedisStore.together

    def noted(self, subscription):
        do = together(self, subscription)
        return lambda *given, **more: told.append(tuple(map(len, given))) or do(*given, **more)

    monkeypatch.setattr(RedisStore, "together", noted)
    task = task_deco("lone", broker_kind="redis_ack", is_using_rpc_mode=True, ack=ack)(lambda n: n)
    task.consume()
    assert [task.push(n).get(BOUND) for n in range(5)] == list(range(5))
    until(lambda: sum(task.size()[:3]) == 0, BOUND)
    default_engine().stop()
    assert told == [(0, 1, 1) if ack == "late" else (0, 0, 1, 1)] * 5
