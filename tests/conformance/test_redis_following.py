"""What a run's end publishes into its own queue is leased with it, where nothing else waits."""

from __future__ import annotations

import threading

import pytest
from helpers import BOUND, until

from fsdf_engine import default_engine, task_deco
from fsdf_engine.brokers.redis_ack import AckSubscription
from fsdf_engine.contracts import Mark, Outgoing, Record, outcomes
from fsdf_engine.controls.cancelled import SIGN
from fsdf_engine.errors import PublishError, Unanswered
from fsdf_engine.following import Following
from fsdf_engine.stores.redis import RedisStore
from fsdf_engine.stores.redis_together import AtOnce
from fsdf_engine.testing.brokers import MB

NEXT, STEPS = b'{"n":1}', 20


@pytest.fixture
def sub(broker):
    """A subscription that has leased one message."""
    broker.publish([Outgoing("q", "first", b"{}")])
    sub = broker.subscribe("q", lease=15.0)
    sub.leases = [delivery.lease for delivery in sub.fetch(10, MB)]
    yield sub
    sub.close()


class Follower:
    """Takes what is leased; with a mark it wants it to be acknowledged at once."""

    def __init__(self, mark):
        self.mark, self.found, self.acknowledged = mark, [], None

    def foresee(self, delivery):
        self.foreseen = delivery
        return self.mark

    def take(self, *, acknowledged):
        self.found.append(self.foreseen)
        self.acknowledged = acknowledged


def followed(store, sub, *messages, mark=None):
    """End the run of what is leased, with these messages; return who takes what is leased then."""
    follower = Follower(mark)
    store.together(sub)(messages, [Record("a", b"{}")], sub.leases, follow=follower)
    return follower


def end(store, sub, *messages):
    """As `followed`; return what is leased with it."""
    return followed(store, sub, *messages).found


def message(queue="q", **more):
    return Outgoing(queue, "m", NEXT, **more)


def test_what_is_published_comes_leased_with_the_end(broker, store, sub):
    [delivery] = end(store, sub, message())
    assert (delivery.body, delivery.deliveries, delivery.priority) == (NEXT, 0, 0)
    assert broker.size("q") == (0, 0, 1, 0)
    assert sub.unsigned
    assert list(sub.extend([delivery.lease])) == [delivery.lease]
    assert sub.settle([(delivery.lease, outcomes.ACK)]) == []
    assert broker.size("q") == (0, 0, 0, 0)


MARK = Mark("early", b"body", 60.0, watched=True)


def test_what_is_to_be_acknowledged_early_comes_so(broker, store, sub):
    taken = followed(store, sub, message(), mark=MARK)
    assert [delivery.body for delivery in taken.found] == [NEXT]
    assert taken.acknowledged
    assert sub.unsigned
    assert sum(broker.size("q")) == 0
    assert store.marks().read(["early"]) == {"early": b"body"}
    assert store.marks().delete(["early"]) == 1


def test_while_something_is_cancelled_it_is_leased_only(broker, store, sub, redis_url):
    beside = RedisStore(redis_url)
    beside.marks().put([Mark(SIGN, b"1", 60.0)])
    taken = followed(store, sub, message(), mark=MARK)
    assert len(taken.found) == 1
    assert not taken.acknowledged
    assert broker.size("q").leased == 1
    assert store.marks().read(["early"]) == {}
    beside.close()


def test_that_something_is_cancelled_is_told_with_it(broker, store, sub, redis_url):
    beside = RedisStore(redis_url)
    beside.marks().put([Mark(SIGN, b"1", 60.0)])
    assert len(end(store, sub, message())) == 1
    assert not sub.unsigned
    beside.close()


BEFORE = {
    "waiting": lambda broker: broker.publish([Outgoing("q", "w", b"{}")]),
    "of a priority": lambda broker: broker.publish([Outgoing("q", "w", b"{}", priority=3)]),
    "below 0": lambda broker: broker.publish([Outgoing("q", "w", b"{}", priority=-3)]),
    "due": lambda broker: broker.publish([Outgoing("q", "w", b"{}", not_before=1.0)]),
}


@pytest.mark.parametrize("before", BEFORE)
def test_who_was_in_line_before_comes_first(broker, store, sub, before):
    BEFORE[before](broker)
    assert end(store, sub, message()) == []
    assert broker.size("q").leased == 0


OTHERS = {
    "to another queue": [message("other")],
    "two": [message(), message()],
    "delayed": [message(delay=60.0)],
    "none": [],
}


@pytest.mark.parametrize("messages", OTHERS)
def test_all_else_is_published_only(broker, store, sub, messages):
    assert end(store, sub, *OTHERS[messages]) == []


@pytest.mark.parametrize("mark", [None, MARK], ids=["late", "early"])
def test_what_follows_an_end_that_is_older_than_the_stored_one_waits(broker, store, sub, mark):
    store.write([Record("a", b"{}", 3)])
    assert followed(store, sub, message(), mark=mark).found == []
    assert broker.size("q") == (1, 0, 0, 0)
    assert store.marks().read(["early"]) == {}


def test_what_is_delayed_is_not_in_line(broker, store, sub):
    broker.publish([Outgoing("q", "d", b"{}", delay=60.0)])
    assert len(end(store, sub, message())) == 1
    assert broker.size("q") == (0, 1, 1, 0)


def test_what_nobody_follows_waits(broker, store, sub):
    assert store.together(sub)([message()], [], sub.leases) == (3, [])
    assert broker.size("q") == (1, 0, 0, 0)


def test_what_was_perhaps_leased_is_given_back(broker, store, sub, monkeypatch):
    exchange = store.connection().exchange

    def silent(commands):
        exchange(commands)
        raise Unanswered("nothing came")

    with monkeypatch.context() as patched:
        patched.setattr(store.connection(), "exchange", silent)
        with pytest.raises(PublishError):
            end(store, sub, message())
    assert broker.size("q") == (0, 0, 1, 0)
    assert sub.fetch_next(10, MB, BOUND) is None  # at once: a fetch has something to do
    [delivery] = sub.fetch(10, MB)
    assert (delivery.body, delivery.deliveries) == (NEXT, 0)


def test_an_answer_that_comes_after_a_third_of_the_lease_is_none(broker, store):
    sub = broker.subscribe("q", lease=0.0)  # each answer takes longer
    sub.leases = []
    assert end(store, sub, message()) == []
    sub.close()


def test_who_waits_meanwhile_fetches(broker, store):
    sub, found = broker.subscribe("q", lease=15.0), []
    assert not sub.fetch(10, MB)
    waiter = threading.Thread(target=lambda: found.append(sub.fetch_next(10, MB, BOUND)))
    waiter.start()
    until(lambda: sub._waiting)
    sub.missed(sub.batch())
    waiter.join(BOUND)
    assert found == [None]
    sub.close()


def steps(url, monkeypatch, ack):
    """Run a task whose end publishes the next of `STEPS`; return by which threads it ran."""
    monkeypatch.setenv("FSDF_REDIS_URL", url)

    def following(job, outcome):
        if type(outcome) is not outcomes.Succeeded or outcome.value >= STEPS:
            return []
        return [Outgoing("steps", f"{job.id[:8]}-{outcome.value}", b'{"n":%d}' % outcome.value)]

    monkeypatch.setattr(
        default_engine(), "amend", lambda plan: plan._replace(sinks=(*plan.sinks, following))
    )
    ran, done, subs = [], threading.Event(), []
    fetch_next = AckSubscription.fetch_next

    def noted(self, *given):
        subs[:] = [self]
        return fetch_next(self, *given)

    monkeypatch.setattr(AckSubscription, "fetch_next", noted)

    @task_deco("steps", broker_kind="redis_ack", is_using_rpc_mode=True, ack=ack)
    def step(n):
        ran.append((n, threading.get_ident()))
        if n == 0:
            until(lambda: subs and subs[0]._waiting)  # again: so the slot can take its place
        if n + 1 >= STEPS:
            done.set()
        return n + 1

    step.consume()
    step.push(0)
    assert done.wait(BOUND)
    until(lambda: sum(step.size()[:3]) == 0, BOUND)
    return ran


@pytest.mark.parametrize("ack", ["late", "early"])
def test_the_next_step_runs_where_the_last_has_ended(redis_url, monkeypatch, ack):
    taken, take = [], Following.take

    def noted(self, *, acknowledged):
        taken.append(acknowledged)
        take(self, acknowledged=acknowledged)

    monkeypatch.setattr(Following, "take", noted)
    ran = steps(redis_url, monkeypatch, ack)
    default_engine().stop()
    assert [n for n, _ in ran] == list(range(STEPS))
    assert len(taken) >= STEPS - 2  # the wait may have ended by its time, once
    assert set(taken) == {ack == "early"}
    assert len({ident for _, ident in ran}) <= 2


def between(monkeypatch, step):
    """Let `step` be called once all is taken at once, and before that is told."""
    exchanged = AtOnce._exchanged

    def told(self, command, publishes=(), batch=""):
        reply = exchanged(self, command, publishes, batch)
        step(self, publishes, batch)
        return reply

    monkeypatch.setattr(AtOnce, "_exchanged", told)


@pytest.mark.parametrize("ack", ["late", "early"])
def test_a_lost_answer_doubles_nothing(redis_url, monkeypatch, ack):
    lost = []

    def lose(taken, publishes, batch):
        if batch and len(lost) < 3:
            lost.append(batch)
            taken._subscription.missed(batch)
            raise PublishError((), publishes) from Unanswered("nothing came")

    between(monkeypatch, lose)
    ran = steps(redis_url, monkeypatch, ack)
    default_engine().stop()
    assert len(lost) == 3
    assert [n for n, _ in ran] == list(range(STEPS))


def test_what_was_taken_early_and_may_not_start_is_sent_anew(broker, redis_url, monkeypatch):
    paused = []

    def pause(taken, publishes, batch):
        if batch and not paused:
            [handle] = default_engine().handles()
            handle.consumer.pause()
            paused.append(handle)

    def resume():
        until(lambda: paused and broker.size("steps").waiting, BOUND)
        paused[0].consumer.resume()

    between(monkeypatch, pause)
    later = threading.Thread(target=resume)
    later.start()
    ran = steps(redis_url, monkeypatch, "early")
    later.join(BOUND)
    default_engine().stop()
    assert paused
    assert [n for n, _ in ran] == list(range(STEPS))


def test_what_is_acknowledged_and_not_told_yet_is_not_lost(redis_url, monkeypatch, caplog):
    renewed = []

    def renew(*_):
        for handle in default_engine().handles():
            handle.consumer.keeper.extend()
            renewed.append(handle.consumer.keeper.lost)

    between(monkeypatch, renew)
    steps(redis_url, monkeypatch, "late")
    default_engine().stop()
    assert renewed
    assert not any(renewed)
    assert not [r for r in caplog.records if "are lost" in r.getMessage()]
