"""What becomes of messages whose arguments, or whose codec, cannot be had: told from bytes and
envelope alone."""

from __future__ import annotations

import json
import threading

import pytest
import toy_wire
from doubles import Results
from helpers import BOUND, until

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Outgoing
from fsdf_engine.core.context import current
from fsdf_engine.core.ending import give_verdict
from fsdf_engine.core.forms import replays
from fsdf_engine.core.retry import RetryPolicy
from fsdf_engine.errors import Requeue, Retry
from fsdf_engine.message import FLAT
from fsdf_engine.outcomes import Crashed, DeadLetter, Failed, Revoked
from fsdf_engine.pools.threads import ThreadPool
from fsdf_engine.result_sink import result_sink
from fsdf_engine.testing.codecs import opened

SINKS = (result_sink(60.0),)


@pytest.fixture
def results():
    return Results()


@pytest.fixture
def begin(start, results):
    """Start a consumer of toys; its function appends what it is called with to `begin.ran`."""
    ran = []

    def begin(broker, fn=None, *, codecs=None, spec=None, **options):
        codecs = codecs or (toy_wire.Troubled(), FLAT)
        spec = {"sinks": SINKS, "policy": RetryPolicy(0), **(spec or {})}

        def work(n, more=0):
            ran.append(n)
            return fn(n) if fn else None

        return start(broker, work, codecs=codecs, spec=spec, results=results, **options)

    begin.ran = ran
    toy_wire.Troubled.stay.clear()
    yield begin
    toy_wire.Troubled.stay.set()


def toy(n, kind="raise", **control):
    control = {"task_id": str(n), "reply": "inbox", "headers": {"trouble": kind}, **control}
    return toy_wire.message([n], {}, control, "q")


def settled(handle, count):
    until(lambda: handle.consumer.outbox.settled >= count)


class Revoking:
    """A gate that looks at nothing."""

    def judge(self, batch, now):
        return [Revoked() if job.id == "0" else None for job in batch]


class Looking:
    """A gate that looks at arguments, and spoils them."""

    needs_arguments = True

    def __init__(self):
        self.seen = []

    def judge(self, batch, now):
        self.seen += [(*job.args, *job.kwargs.values()) for job in batch]
        for job in batch:
            job.kwargs.clear() if job.kwargs else job.args.clear()
        return [None] * len(batch)


def test_revoked_is_told_by_the_envelope_alone(begin, results):
    broker = MemoryBroker()
    broker.publish([toy(0), toy(1, None)])
    settled(begin(broker, gates=[Revoking()]), 2)
    assert (results.told("0")["status"], results.records["0"].reply) == ("revoked", "inbox")
    assert (begin.ran, broker.size("q")) == ([1], (0, 0, 0, 0))


def test_what_is_withdrawn_goes_back_as_it_was(begin, results):
    broker = MemoryBroker()
    sent = [toy(0, "hang"), *(toy(n) for n in range(1, 5))]
    broker.publish(sent)
    handle = begin(broker, pool=ThreadPool(1))
    until(handle.pool.running)
    handle.pause()
    until(lambda: broker.size("q").waiting == 4)
    assert not results.records
    found = broker.subscribe("q", lease=BOUND).fetch(9, 1 << 20)
    assert sorted(d.body for d in found) == sorted(item.body for item in sent[1:])
    toy_wire.Troubled.stay.set()


def test_what_hangs_is_interrupted_by_a_stop(begin, results):
    broker = MemoryBroker()
    broker.publish([toy(0, "hang")])
    handle = begin(broker)
    until(handle.pool.running)
    handle.stop(timeout=0.1)
    assert broker.size("q") == (1, 0, 0, 0)
    assert not results.records


def test_a_gate_that_needs_arguments_gets_some_of_its_own(begin, results):
    broker, gate = MemoryBroker(), Looking()
    typed = b'{"n":{"__type__":"set","__value__":[1]},"extra":{"task_id":"2"}}'
    escaped = b'{"n":{"__type__":"object","__value__":[["__type__","set"],["__value__",1]]}}'
    broker.publish([toy(0), toy(1, None), Outgoing("q", "", typed), Outgoing("q", "", escaped)])
    settled(begin(broker, gates=[Looking(), gate], pool=ThreadPool(1)), 4)
    told = {"__type__": "set", "__value__": 1}
    assert gate.seen == [(1,), ({1},), (told,)]
    assert begin.ran == [1, {1}, told]
    assert results.told("0")["status"] == "invalid"


# ------------------------------------------------------------------ codecs at fault


class Odd(toy_wire.Listed):
    """Its envelope gives, or raises, what it was made with."""

    def __init__(self, gives):
        self.gives = gives

    def envelope(self, body, headers):
        found = super().envelope(body, headers)
        if not found or found[0]["task_id"] != "0":
            return found
        if isinstance(self.gives, BaseException):
            raise self.gives
        return self.gives


@pytest.mark.parametrize(
    ("gives", "reason"),
    [
        (KeyError("x"), "the codec Odd failed: KeyError: 'x'"),
        (SystemExit(1), "the codec Odd failed: SystemExit: 1"),
        (ValueError("broken"), "ValueError: broken"),
        (5, "the codec Odd gave 5 as an envelope"),
        ((1, 2, 3), "the codec Odd gave (1, 2, 3) as an envelope"),
        (("ab", 1), "the codec Odd gave ('ab', 1) as an envelope"),
    ],
)
def test_a_codec_that_fails_costs_the_message_only(begin, results, gives, reason):
    broker = MemoryBroker()
    broker.publish([toy(0, None), toy(1, None)])
    settled(begin(broker, codecs=(Odd(gives), FLAT)), 2)
    [letter] = broker.dead_letters("q")
    assert (letter.reason, letter.body) == (f"invalid: {reason}", toy(0, None).body)
    assert begin.ran == [1]


def test_a_message_that_no_codec_knows_is_a_dead_letter(begin):
    broker = MemoryBroker()
    broker.publish([Outgoing("q", "", b'{"n":0}'), toy(1, None)])
    settled(begin(broker, codecs=(toy_wire.Listed(),)), 2)
    [letter] = broker.dead_letters("q")
    assert "no codec of this queue knows the message" in letter.reason
    assert begin.ran == [1]


class Stubborn(toy_wire.Listed):
    """It cannot write a message again."""

    def __init__(self, gives):
        self.gives = gives

    def again(self, job, changes):
        if isinstance(self.gives, BaseException):
            raise self.gives
        return self.gives


@pytest.mark.parametrize(
    "gives",
    [
        KeyError("x"), SystemExit(1), None, b"text", Outgoing("", "", b""),
        Outgoing("q", "", "text"), Outgoing("q", "", b"", priority=10),
        Outgoing("q", "", b"", priority="high"),
    ],
)  # fmt: skip
def test_a_message_that_cannot_be_sent_anew_is_a_dead_letter(begin, results, gives):
    broker = MemoryBroker()

    def fn(n):
        if n == 0:
            raise Retry(changes={"kwargs": {}})

    broker.publish([toy(0, None), toy(1, None)])
    spec = {"policy": RetryPolicy(3)}
    settled(begin(broker, fn, codecs=(Stubborn(gives),), spec=spec), 2)
    assert results.told("0")["status"] == "failed"
    assert "cannot be sent anew" in results.told("0")["reason"]
    assert "cannot be sent anew" in broker.dead_letters("q")[0].reason
    assert broker.size("q") == (0, 0, 0, 1)


@pytest.mark.parametrize("key", ["colour", "sends", "task_id"])
def test_a_change_that_a_retry_cannot_make_is_a_dead_letter(begin, results, key):
    broker = MemoryBroker()

    def fn(n):
        raise Retry(changes={key: "red"})

    broker.publish([Outgoing("q", "", b'{"n":0,"extra":{"task_id":"0"}}')])
    settled(begin(broker, fn, spec={"policy": RetryPolicy(3)}), 1)
    assert repr(key) in broker.dead_letters("q")[0].reason


def test_codec_that_knows_its_messages_by_their_headers_replays_them():
    class ByHeaders(toy_wire.Listed):
        def envelope(self, body, headers):
            return ({}, body) if headers == {"form": "toy"} else None

        def replayed(self, body):
            return b"once more"

    again = replays((ByHeaders(), FLAT))
    assert again(b"{}", {"form": "toy"}) == b"once more"
    assert again(b"{}", None) == b"{}"


# ------------------------------------------------------------------ sent anew


@pytest.mark.parametrize("message", [toy(0, None), None], ids=["toy", "flat"])
def test_what_is_sent_anew_is_told_apart_and_keeps_its_id(begin, results, message):
    body = b'{"n":0,"extra":{"task_id":"0","reply":"inbox"}}'
    message = message or Outgoing("q", "0", body)
    message.priority = 4
    broker, published, seen = MemoryBroker(), [], []
    publish = broker.publish
    broker.publish = lambda batch: (published.extend(batch), publish(batch))

    def fn(n):
        seen.append((current.task_id, current.attempt, current.expires))
        if len(seen) < 3:
            raise Retry(changes={"expires": 9e9 + len(seen), "queue": "q"})

    publish([message])
    settled(begin(broker, fn, spec={"policy": RetryPolicy(9)}), 3)
    assert seen == [("0", 0, 0.0), ("0", 1, 9e9 + 1), ("0", 2, 9e9 + 2)]
    assert [item.priority for item in published] == [4, 4]
    assert len({item.id for item in published}) == 2
    assert (results.records["0"].sends, results.records["0"].reply) == (2, "inbox")
    assert results.told("0")["status"] == "succeeded"


def test_the_name_of_what_is_sent_anew_is_derived():
    """So a crash between publishing and settling gives a second copy of one name at most."""
    job = opened(FLAT, Outgoing("q", "", b'{"extra":{"task_id":"0"}}'))
    names = set()
    for _ in range(2):
        job.acked, job.pushes = False, None
        job.outcome = RetryPolicy().outcome(Retry(changes={"expires": 5.0}), 0)
        give_verdict(job, 0.0)
        names.add(job.effects[0].id)
    assert len(names) == 1
    assert names != {"0"}


def test_crashes_travel_with_what_is_sent_anew():
    job = opened(FLAT, Outgoing("q", "", b'{"extra":{"task_id":"0"}}'))
    job.delivery.state = {"crashes": 2, "attempt": 1}
    job.attempt, job.acked, job.pushes = 1, False, None
    job.outcome = RetryPolicy().outcome(Retry(changes={"expires": 5.0}), 1)
    give_verdict(job, 0.0)
    new = opened(FLAT, job.effects[0])
    assert {"crashes": 2, "attempt": 2}.items() <= new.extra.items()
    new.attempt, new.acked, new.pushes = 2, False, None
    new.outcome = Failed(ValueError())
    give_verdict(new, 0.0)
    assert type(new.verdict) is DeadLetter
    new.outcome = Crashed(1)
    give_verdict(new, 0.0)
    assert new.verdict.state["crashes"] == 3


def test_an_early_requeue_in_another_form_comes_back(begin, results):
    broker, once = MemoryBroker(), threading.Event()

    def fn(n):
        if not once.is_set():
            once.set()
            raise Requeue(delay=0.01)

    broker.publish([toy(0, None)])
    settled(begin(broker, fn, spec={"early": True}), 2)
    assert begin.ran == [0, 0]
    assert results.told("0")["status"] == "succeeded"


def test_a_gate_may_look_at_the_envelope_of_any_form(begin):
    broker, seen = MemoryBroker(), []

    class Seeing:
        def judge(self, batch, now):
            seen.extend((job.extra.get("reply"), type(job.codec).__name__) for job in batch)
            return [None] * len(batch)

    broker.publish([toy(0, None), Outgoing("q", "", json.dumps({"n": 1}).encode())])
    settled(begin(broker, gates=[Seeing()]), 2)
    assert seen == [("inbox", "Troubled"), (None, "Flat")]
