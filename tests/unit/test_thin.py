"""What the engine does with brokers that lack capabilities."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from itertools import pairwise

import pytest
from doubles import bodies
from helpers import BOUND, until
from thin import ALL, LACKS, NamedThinBroker, ThinBroker

from fsdf_engine import ConfigurationError, Requeue, Retry, default_engine, task_deco
from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.cli import main
from fsdf_engine.contracts import Capability, Letter, Outgoing
from fsdf_engine.core.ending import POISON
from fsdf_engine.core.retry import RetryPolicy
from fsdf_engine.errors import Unavailable
from fsdf_engine.outcomes import Release
from fsdf_engine.pools.threads import ThreadPool
from fsdf_engine.registry import brokers
from fsdf_engine.testing.deliveries import fetch_some


class Held:
    """Runs that wait for `go`; says which have started."""

    def __init__(self):
        self.go, self.started = threading.Event(), []

    def __call__(self, n):
        self.started.append(n)
        self.go.wait(BOUND)


def sent(broker, queue="q"):
    """Return how many messages the subscriptions of a queue have been sent and not handed out."""
    with broker.guard:
        return sum(len(sub.sent) for sub in broker.subscriptions.get(queue, ()))


@pytest.fixture
def held():
    held = Held()
    yield held
    held.go.set()


# ------------------------------------------------------------------ without PULL: rest


def test_what_was_sent_goes_back_while_all_slots_are_in_long_runs(start, held):
    broker = ThinBroker(Capability.PULL)
    consumer = start(broker, held, ThreadPool(2)).consumer
    broker.publish(bodies(20))
    until(lambda: len(held.started) == 2)
    until(lambda: not sent(broker) and broker.inner.size("q").waiting >= 18)
    held.go.set()
    until(lambda: consumer.outbox.settled >= 20 and not any(broker.size("q")))
    assert sorted(held.started) == list(range(20))


def test_what_was_sent_goes_back_at_a_pause_and_at_the_end(start, held):
    broker = ThinBroker(Capability.PULL)
    handle = start(broker, held, ThreadPool(1))
    broker.publish(bodies(20))
    until(lambda: held.started)
    handle.pause()
    until(lambda: not sent(broker) and broker.inner.size("q").waiting == 19)
    held.go.set()
    until(lambda: broker.inner.size("q") == (19, 0, 0, 0))
    broker.publish(bodies(25)[20:])  # nobody is sent anything
    assert broker.inner.size("q").waiting == 24
    handle.resume()
    until(lambda: len(held.started) == 25)
    held.go.clear()
    broker.publish(bodies(34)[25:])
    until(lambda: len(held.started) == 26)
    held.go.set()
    handle.stop()
    assert not broker.inner.size("q").leased
    assert len(held.started) + broker.inner.size("q").waiting == 34


class Closed:
    """A valve that lets one message pass, and then is closed for an hour."""

    def __init__(self):
        self.left = 1

    def permits(self, wanted, now):
        given = min(wanted, self.left)
        return given, 0.0 if given else 3600.0

    def starts(self, count, now):
        self.left -= count
        return [now] * count


def test_what_was_sent_goes_back_while_a_valve_is_closed(start):
    broker, seen = ThinBroker(Capability.PULL), []
    broker.publish(bodies(20))
    start(broker, lambda n: seen.append(n), valve=Closed())
    until(lambda: seen and not sent(broker) and broker.inner.size("q") == (19, 0, 0, 0))


def test_a_consumer_that_only_waits_never_rests(start, monkeypatch):
    broker, rests = ThinBroker(Capability.PULL), []
    consumer = start(broker, lambda n: None).consumer
    rest = consumer.subscription.rest
    monkeypatch.setattr(consumer.subscription, "rest", lambda: (rests.append(1), rest()))
    monkeypatch.setattr(consumer, "_idle", 0.01)
    consumer.rouse()
    fetch, fetches = consumer.subscription.fetch, []
    monkeypatch.setattr(
        consumer.subscription, "fetch", lambda *limits: (fetches.append(1), fetch(*limits))[1]
    )
    consumer._ended_at = time.monotonic() - 60.0
    until(lambda: len(fetches) > 5)
    assert not rests


def test_brokers_that_are_asked_are_never_told_to_rest(start, held):
    broker = MemoryBroker()
    handle = start(broker, held, ThreadPool(1))
    handle.consumer.subscription.rest = pytest.fail
    broker.publish(bodies(20))
    until(lambda: held.started)
    handle.pause()
    held.go.set()
    until(lambda: broker.size("q") == (19, 0, 0, 0))


# ------------------------------------------------------------------ without COUNTED, TIMED, ATOMIC


@pytest.mark.parametrize("lacks", [Capability.COUNTED, ALL], ids=["counted", "all"])
def test_what_was_given_back_again_and_again_is_neither_lost_nor_suspected(start, lacks):
    broker, seen = ThinBroker(lacks), []
    broker.publish(bodies(50))
    sub, most = broker.subscribe("q", lease=60.0), 0
    while most <= 2 * POISON:
        most = max((found := fetch_some(sub))[0].deliveries, most)
        sub.settle([(d.lease, Release()) for d in found])
    sub.close()
    consumer = start(broker, lambda n: seen.append(n)).consumer
    until(lambda: len(seen) == 50 and consumer.outbox.settled == 50)
    assert not consumer._isolation.most
    assert not broker.size("q").dead


def test_what_is_acknowledged_without_an_answer_is_a_dead_letter_where_leases_have_no_end(start):
    """Its connection may have been lost before: perhaps another worker has it."""
    broker, seen, lost = ThinBroker(Capability.TIMED), [], []
    consumer = start(broker, lambda n: seen.append(n), spec={"early": True}).consumer
    settle = consumer.subscription.settle

    def unheard(batch):
        gone = settle(batch)
        if not lost:
            lost.append(1)
            raise Unavailable("the answer is lost")
        return gone

    consumer.subscription.settle = unheard
    broker.publish(bodies(1))
    until(lambda: broker.size("q").dead == 1)
    assert not seen
    assert "perhaps another has it" in broker.dead_letters("q")[0].reason


@pytest.mark.parametrize("lacks", [Capability.ATOMIC, ALL], ids=["atomic", "all"])
def test_an_outage_between_a_copy_and_its_end_is_a_duplicate_at_most(start, lacks):
    broker, failures, tries = ThinBroker(lacks), iter(range(40)), Counter()

    def between():
        if next(failures, 40) % 3 == 0:
            raise Unavailable("the connection is gone")

    broker.between = between
    lock = threading.Lock()

    def fn(n):
        with lock:
            tries[n] += 1
            first = tries[n] == 1
        if first and n % 2:
            raise ValueError(n)

    policy = RetryPolicy(2, 1.01, jitter=False)
    consumer = start(broker, fn, spec={"policy": policy}).consumer
    broker.publish(bodies(30))
    until(lambda: len(tries) == 30 and all(tries[n] >= 1 + n % 2 for n in tries))
    until(lambda: broker.inner.size("q") == (0, 0, 0, 0) and not consumer.held())


@pytest.mark.parametrize("lacks", ["delay", "all and delay"])
def test_what_a_run_puts_off_comes_later_although_nothing_can_be_delayed(start, lacks):
    broker, runs = ThinBroker(LACKS[lacks]), []

    def fn(n):
        runs.append((n, time.monotonic()))
        if n == 0 and len(runs) < 4:
            raise Requeue(delay=0.15)
        if n == 1 and sum(m == 1 for m, _ in runs) < 2:
            raise Retry(delay=1.05)

    handle = start(broker, fn)
    broker.publish(bodies(2))
    until(lambda: broker.inner.size("q") == (0, 0, 0, 0) and not handle.consumer.held())
    for n, least in ((0, 0.15), (1, 1.05)):
        at = [when for m, when in runs if m == n]
        assert len(at) >= 2
        assert all(b - a >= least - 0.01 for a, b in pairwise(at))


def test_what_is_put_off_goes_back_at_the_end(start):
    broker, runs = ThinBroker(Capability.DELAY), []

    def fn(n):
        runs.append(n)
        raise Requeue(delay=600.0)

    handle = start(broker, fn)
    broker.publish(bodies(3))
    until(lambda: broker.size("q") == (0, 3, 0, 0) and not handle.consumer.held())
    handle.stop()
    assert broker.size("q") == (3, 0, 0, 0)


# ------------------------------------------------------------------ tasks, and what they need


@pytest.fixture(params=[None, *LACKS])
def thin(request, monkeypatch):
    """`thin` as a kind of brokers, one for each capability that is lacking."""
    if request.param:

        class Lacking(NamedThinBroker):
            def __init__(self, url):
                ThinBroker.__init__(self, LACKS[request.param])

        return Lacking
    return NamedThinBroker


def test_join_waits_for_what_was_sent_and_ends(thin, monkeypatch):
    monkeypatch.setattr("thin.NamedThinBroker", thin)
    monkeypatch.setitem(brokers._table, "thin", "thin:NamedThinBroker")
    seen = []

    @task_deco("joined", broker_kind="thin", concurrent_num=3)
    def joined(n: int) -> None:
        seen.append(n)

    handle = joined.consume()
    for n in range(200):
        joined.push(n)
        if n % 20 == 0:
            assert joined.join(BOUND)
            assert len(seen) == n + 1
    assert joined.join(BOUND)
    assert sorted(seen) == list(range(200))
    assert joined.get_message_count() == 0
    handle.stop()


class Narrow(MemoryBroker):
    """Some queues have less than the others; while `away` it does not say so."""

    away = False

    def __init__(self, url=""):
        super().__init__()

    def capabilities_of(self, queue):
        if self.away:
            raise Unavailable("away")
        less = getattr(Capability, queue.partition(".")[2], Capability(0))  # of "narrow.DELAY"
        return self.capabilities & ~less


@pytest.fixture
def narrow(monkeypatch):
    """`narrow` as a kind of brokers."""
    Narrow.away = False
    monkeypatch.setattr("thin.NamedThinBroker", Narrow)
    monkeypatch.setitem(brokers._table, "narrow", "thin:NamedThinBroker")


@pytest.mark.parametrize(
    ("option", "lacking"),
    [
        ({"priority": 5}, "PRIORITY"),
        ({"retry_backoff": 0.4}, "DELAY"),
        ({"keep_failed": True}, "DEAD_LETTER"),
    ],
    ids=["priority", "delay", "dead letters"],
)
def test_a_task_that_needs_more_is_refused_at_the_first_connection(narrow, option, lacking):
    name = next(iter(option))

    @task_deco(f"narrow.{lacking}", broker_kind="narrow", **option)
    def needy(n: int) -> None: ...

    with pytest.raises(ConfigurationError, match=f"needy has {name}=.* has no {lacking}"):
        needy.consume()
    if name == "priority":
        with pytest.raises(ConfigurationError, match="needy has priority=5"):
            needy.push(1)
    else:
        needy.push(1)

    @task_deco("wide", broker_kind="narrow", **option)
    def served(n: int) -> None: ...

    served.push(1)
    served.consume()
    assert served.join(BOUND)


def test_a_short_backoff_needs_no_delay(narrow):
    seen = []

    @task_deco("narrow.DELAY", broker_kind="narrow", retry_backoff=0.05, max_retry_times=2)
    def quick(n: int) -> None:
        seen.append(n)
        raise ValueError(n)

    quick.push(1)
    quick.consume()
    until(lambda: quick.size().dead == 1)
    assert seen == [1, 1, 1]


def test_what_an_absent_server_would_refuse_is_told_when_it_is_there(narrow, caplog):
    Narrow.away = True
    seen = []

    @task_deco("narrow.DELAY", broker_kind="narrow", retry_backoff=5.0)
    def needy(n: int) -> None:
        seen.append(n)

    needy.push(1)
    needy.consume()
    until(lambda: "cannot fetch, will try again: away" in caplog.text)
    Narrow.away = False
    until(lambda: "needy has retry_backoff=5" in caplog.text)
    assert not seen
    assert needy.size().waiting == 1


# ------------------------------------------------------------------ commands


@pytest.fixture
def command(monkeypatch, capsys):
    """`command(words...)` -> (code, output, errors) of `fsdf` over one broker that lacks all."""
    monkeypatch.setitem(brokers._table, "thin", "thin:NamedThinBroker")
    engine = default_engine()

    def command(*words):
        code = main([*words, "--broker", "thin"])
        said = capsys.readouterr()
        return code, said.out, said.err

    command.broker = engine.broker("thin")
    return command


def test_size_says_what_cannot_be_counted(command):
    command.broker.publish([Outgoing("a", "1", b"{}")])
    code, out, _ = command("size", "a", "none")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["queue", "waiting", "delayed", "leased", "dead"],
        ["a", "1", "0", "?", "0"],
        ["none", "0", "0", "?", "0"],
    ]
    _, out, _ = command("size", "a", "--json")
    assert json.loads(out) == [{"queue": "a", "waiting": 1, "delayed": 0, "leased": -1, "dead": 0}]


@pytest.mark.parametrize("words", [("size",), ("dead", "list")], ids=["size", "dead list"])
def test_queues_that_cannot_be_listed_have_to_be_named(command, words):
    code, out, err = command(*words)
    assert code != 0
    assert "cannot list its queues; name those" in out + err


def test_of_very_many_dead_letters_the_oldest_are_listed_and_all_are_replayed(command):
    broker = command.broker
    for n in range(1100):
        broker.bury([Letter("a", f"{n}", b"{}", f"reason {n}")])
    code, out, _ = command("dead", "list", "a", "--limit", "3")
    assert code == 0
    assert [f"reason {n}" in out for n in (1099, 1000, 999, 997, 996)] == [
        False, False, True, True, False,
    ]  # fmt: skip
    assert "(3 of 1100; of a queue the 1000 oldest can be seen)" in out
    code, _, err = command("dead", "replay", "a", "1099")
    assert code == 1
    assert "has no dead letter '1099'" in err
    code, out, _ = command("dead", "replay", "a", "5", "7")
    assert (code, out) == (0, "replayed 2\n")
    code, out, _ = command("dead", "replay", "a", "--yes")
    assert (code, out) == (0, "replayed 1098\n")
    assert broker.size("a")[:2] == (1100, 0)
