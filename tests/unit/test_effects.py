"""Effects are made where the code ran, checked there, and stored by the outbox."""

from __future__ import annotations

import json
import threading

import pytest
from effect_tasks import SPEC, WRONG, awork, work
from helpers import BOUND, until

from fsdf_engine import TaskFailed, default_engine, task_deco
from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Member, Outgoing, Record
from fsdf_engine.core.effects import UnfitEffect, check_effect
from fsdf_engine.errors import ConfigurationError
from fsdf_engine.outcomes import describe
from fsdf_engine.pools.processes import ProcessPool
from fsdf_engine.stores.memory import MemoryStore

KINDS = [*WRONG, "no effect"]


class Picky(MemoryBroker):
    """A broker that keeps state beside its queues."""

    @classmethod
    def valid_queue(cls, name):
        super().valid_queue(name)
        if ":" in name:
            raise ConfigurationError(f"the queue {name!r} would lie where another one's state is")


def message(kind, id):
    body = {"kind": kind, "extra": {"task_id": id}}
    return Outgoing("q", id, json.dumps(body).encode())


@pytest.fixture(params=["threads", "asyncio", "processes"])
def consume(request, start):
    """Return what starts a consumer of `work` with its sinks in a pool."""

    def consume(broker, store):
        pool = None
        if request.param == "processes":
            pool = ProcessPool(1, resolve="effect_tasks:resolve")
        fn = awork if request.param == "asyncio" else work
        return start(broker, fn, pool, spec=SPEC, results=store)

    return consume


def test_what_a_sink_makes_is_published_and_stored_once(consume):
    broker, store = Picky(""), MemoryStore("")
    broker.publish([message("right", f"{n}") for n in range(200)])
    consume(broker, store)
    until(lambda: broker.size("q") == (0, 0, 0, 0))
    assert broker.size("next").waiting == 200
    told = [json.loads(body) for body in store.read([f"{n}" for n in range(200)]).values()]
    assert [each["result"] for each in told] == ["right"] * 200


@pytest.mark.parametrize("prefix", ["", "retry "])
def test_an_effect_that_is_not_right_fails_its_run_and_keeps_its_message(consume, prefix):
    broker, store = Picky(""), MemoryStore("")
    broker.publish([message(prefix + kind, kind) for kind in KINDS])
    broker.publish([message("right", "right")])
    consume(broker, store)
    until(lambda: broker.size("q") == (0, 0, 0, len(KINDS)))
    until(lambda: len(store.read([*KINDS, "right"], final=True)) == len(KINDS) + 1)
    told = {id: json.loads(body) for id, body in store.read([*KINDS, "right"]).items()}
    assert {id: each["status"] for id, each in told.items()} == {
        **dict.fromkeys(KINDS, "failed"), "right": "succeeded",
    }  # fmt: skip
    assert broker.size("next").waiting == 1
    assert broker.size("a:dead").waiting == 0
    letters = {letter.reason for letter in broker.dead_letters("q")}
    assert len(letters) == len(KINDS)
    assert any("priority=10 is no whole number from -9 to 9" in reason for reason in letters)


@pytest.mark.parametrize(
    "effect",
    [
        Outgoing("q", "1", b"", {"h": "v"}, 1, 2, -9, 3.5, "key"),
        Outgoing("q", "1", b"", priority=9),
        Record("1", b"{}", 3, False, 60, "inbox", 2, "origin", 1),
        Member("g", "1", b"", True, -1 << 63),
    ],
)
def test_effects_that_are_right_pass(effect):
    check_effect(effect)


@pytest.mark.parametrize(
    ("effect", "what"),
    [
        (Outgoing("q", "1", "text"), "body of an effect Outgoing is of type str"),
        (Outgoing("q", "1", b"", priority=True), "priority of an effect Outgoing is of type bool"),
        (Outgoing("q", "1", b"", priority=-10), "priority=-10"),
        (Outgoing("", "1", b""), "needs a queue"),
        (Outgoing("q", "", b""), "needs a queue and an id"),
        (Outgoing("\udc80", "1", b""), "no Unicode text"),
        (Outgoing("q", "1", b"", {"h": 1}), "header is no Unicode text"),
        (Outgoing("q", "1", b"", {"h": "\udc80"}), "no Unicode text"),
        (Outgoing("q", "1", b"", not_before=float("inf")), "not_before=inf"),
        (Record("1", None), "body of an effect Record is of type NoneType"),
        (Record("1", b"", expires=float("nan")), "expires=nan"),
        (Record("1", b"", expires=0), "expires=0"),
        (Member("g", "1", "text"), "body of an effect Member is of type str"),
        ("text", "a value of type str is no effect"),
    ],
)
def test_effects_that_are_not_right_are_named(effect, what):
    with pytest.raises(UnfitEffect, match=what):
        check_effect(effect)


def test_a_body_that_no_broker_takes_is_refused(monkeypatch):
    monkeypatch.setattr("fsdf_engine.core.effects.LARGEST", 10)
    check_effect(Outgoing("q", "1", b"0123456789"))
    check_effect(Record("1", b"", expires=float("inf")))
    with pytest.raises(UnfitEffect, match="11 bytes; at most 10"):
        check_effect(Outgoing("q", "1", b"0123456789a"))


class Spy(Exception):
    asked: set[str] = set()

    def __str__(self):
        self.asked.add(threading.current_thread().name)
        return "its text"

    __repr__ = __str__


def test_an_error_is_asked_for_its_texts_in_its_run_only(caplog):
    def fail(n):
        raise Spy(Spy("argument"))

    texts = []
    default_engine().listeners.add(
        "run_ended", lambda job, outcome: texts.append(describe(outcome))
    )
    Spy.asked.clear()
    task = task_deco("spied", broker_kind="memory", is_using_rpc_mode=True, max_retry_times=1)(fail)
    task.consume()
    with pytest.raises(TaskFailed, match="its text") as failed:
        task.push(1).get(BOUND)
    assert "in fail" in failed.value.traceback
    until(lambda: texts == ["Spy: its text"])
    told = [record for record in caplog.records if record.exc_text]
    assert ["in fail" in record.exc_text for record in told] == [True]
    assert "Spy: its text" in told[0].getMessage()
    assert Spy.asked
    assert not {name for name in Spy.asked if "outbox" in name}


def test_listeners_in_the_process_of_the_run_get_the_value_itself():
    values, value = [], {"key": (1, 2)}
    default_engine().listeners.add("run_ended", lambda job, outcome: values.append(outcome.value))
    task = task_deco("heard", broker_kind="memory", is_using_rpc_mode=True)(lambda n: value)
    task.consume()
    assert task.push(1).get(BOUND) == {"key": [1, 2]}
    until(lambda: values)
    assert values[0] is value
