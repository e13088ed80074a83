"""What becomes of a completed group, whatever the broker, the store and a layer on top do."""

from __future__ import annotations

import logging

import pytest

from fsdf_engine import grouping as module
from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Group, Letter, Member, Outgoing, Record
from fsdf_engine.errors import BrokerError, PublishError, Unanswered, Unavailable
from fsdf_engine.grouping import TRIES, Grouping
from fsdf_engine.stores.memory import MemoryStore


class Moody(MemoryBroker):
    """A broker that raises what `errors` has, call by call, and logs what it stored."""

    def __init__(self):
        super().__init__()
        self.errors, self.log = [], []

    def publish(self, batch):
        error = self.errors.pop(0) if self.errors else None
        if callable(error):
            error = error(batch)
        if error is not None:
            raise error
        super().publish(batch)
        self.log += [message.id for message in batch]

    def bury(self, batch):
        super().bury(batch)
        self.log += [f"dead {letter.id}: {letter.reason}" for letter in batch]


def plain(done, refusal):
    body = done.body
    if refusal:
        return [Letter(body.queue, body.id, body.body, refusal)]
    values = b",".join(member.body for member in done.members)
    return [Outgoing(body.queue, body.id, b"[%b]" % values)]


@pytest.fixture
def broker():
    return Moody()


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def grouping(broker, store):
    return Grouping(broker, store, "p", 60.0, plain)


def opened(grouping, *names, size=1):
    grouping.open([Group(name, Outgoing("q", f"of {name}", b""), size) for name in names])


def last(*names):
    return [Member(name, "0", b"v") for name in names]


def test_the_message_of_a_completed_group_is_published_once(grouping, broker):
    opened(grouping, "g", size=2)
    grouping.add([Member("g", "0", b"1")])
    assert broker.log == []
    for _ in range(3):
        grouping.add([Member("g", "1", b"2", place=1), Member("g", "0", b"again")])
    assert broker.log == ["of g"]
    assert broker.subscribe("q", lease=5.0).fetch(9, 1 << 20)[0].body == b"[1,2]"


def test_an_outage_keeps_a_message_back_until_the_call_is_repeated(grouping, broker):
    opened(grouping, "g", "h")
    broker.errors = [Unavailable("down"), Unavailable("still")]
    for _ in range(2):
        with pytest.raises(Unavailable):
            grouping.add(last("g", "h"))
    grouping.add(last("g", "h"))
    grouping.add(last("g", "h"))
    assert sorted(broker.log) == ["of g", "of h"]


def test_an_outage_while_a_layer_composes_keeps_the_group_for_the_next_call(broker, store):
    down = [True]

    def compose(done, refusal):
        if down:
            raise Unavailable("what it asks for is down")
        return plain(done, refusal)

    grouping = Grouping(broker, store, "p", 60.0, compose)
    opened(grouping, "g")
    with pytest.raises(Unavailable):
        grouping.add(last("g"))
    assert broker.log == []
    down.clear()
    grouping.add(last("g"))
    assert broker.log == ["of g"]


def test_a_refused_message_is_a_dead_letter_and_the_others_leave(grouping, broker):
    def refuse(batch):
        return PublishError([message for message in batch if message.id == "of b"])

    def publish(batch):
        MemoryBroker.publish(broker, [m for m in batch if m.id != "of b"])
        broker.log += [m.id for m in batch if m.id != "of b"]
        return refuse(batch)

    opened(grouping, "a", "b", "c")
    broker.errors = [publish, refuse]
    grouping.add(last("a", "b", "c"))
    *left, dead = broker.log
    assert left == ["of a", "of c"]
    assert dead.startswith("dead of b: the broker refused it: ")
    grouping.add(last("a", "b", "c"))
    assert len(broker.log) == 3


def test_what_cannot_be_written_is_told_from_the_others(grouping, broker):
    def strange(batch):
        return TypeError("a message") if any(m.id == "of b" for m in batch) else None

    opened(grouping, "a", "b", "c")
    broker.errors = [strange] * 4
    grouping.add(last("a", "b", "c"))
    assert sorted(broker.log) == [
        "dead of b: the broker refused it: TypeError('a message')", "of a", "of c",
    ]  # fmt: skip


def test_a_message_that_is_never_answered_is_given_up(grouping, broker):
    opened(grouping, "g")
    broker.errors = [Unanswered("cut")] * TRIES + [PublishError((), ())]
    for _ in range(TRIES):
        with pytest.raises(Unavailable):
            grouping.add(last("g"))
    broker.errors = [Unanswered("cut")]
    grouping.add(last("g"))
    assert broker.log == ["dead of g: the broker refused it: Unanswered('cut')"]


def test_a_dead_letter_that_is_refused_too_leaves_the_bare_one(grouping, broker, caplog):
    refused = BrokerError("too large")
    bury = broker.bury
    broker.errors = [refused, refused]

    def picky(batch):
        if batch[0].body:
            raise refused
        bury(batch)

    broker.bury = picky
    grouping._compose = lambda done, refusal: (
        [Letter("q", "x", b"large", refusal)] if refusal else plain(done, "")
    )
    opened(grouping, "g")
    grouping.add(last("g"))
    [dead] = broker.log
    assert dead.startswith("dead of g: the message of group g did not leave; ")


@pytest.mark.parametrize("made", [ValueError("no"), [None], ["text"], 7])
def test_a_layer_that_composes_nonsense_leaves_a_dead_letter(grouping, broker, made):
    def nonsense(done, refusal):
        if isinstance(made, Exception):
            raise made
        return made

    grouping._compose = nonsense
    opened(grouping, "g", "h")
    grouping.add(last("g", "h"))
    assert [line.split(";")[0] for line in broker.log] == [
        f"dead of {name}: the message of group {name} did not leave" for name in "gh"
    ]
    grouping.add(last("g"))
    assert len(broker.log) == 2


def test_results_of_a_group_are_stored_before_its_message(grouping, broker, store):
    write = store.write

    def log(records):
        broker.log += [record.id for record in records]
        write(records)

    store.write = log
    grouping._compose = lambda done, refusal: [*plain(done, refusal), Record("r", b"{}")]
    opened(grouping, "g")
    grouping.add(last("g"))
    assert broker.log == ["r", "of g"]


class Died(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(
    ("step", "times"), [("add", 1), ("publish", 1), ("published", 2), ("close", 2), ("closed", 1)]
)
def test_who_dies_between_two_steps_leaves_the_group_to_another(
    broker, store, step, times, monkeypatch
):
    """Each is a place at which a process may die; its claim ends, and another one sweeps."""
    dying = Grouping(broker, store, "p", 0.0, plain)
    opened(dying, "g")
    groups = store.groups()
    place, name = (groups, step) if step in ("add", "close") else (broker, "publish")
    if step == "closed":
        place, name = groups, "close"
    whole = getattr(place, name)

    def die(*arguments):
        if step in ("published", "closed"):
            whole(*arguments)
        raise Died

    monkeypatch.setattr(place, name, die)
    with pytest.raises(Died):
        dying.add(last("g"))
    monkeypatch.undo()
    other = Grouping(broker, store, "p", 60.0, plain)
    other.sweep()
    other.add(last("g"))  # the message of the member comes again, too
    assert broker.log == ["of g"] * times


def test_a_sweep_looks_once_in_a_lease(grouping, broker, store, monkeypatch, caplog):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    looks = []
    groups = store.groups()
    claim = groups.claim
    groups.claim = lambda *arguments: (looks.append(now[0]), claim(*arguments))[1]
    assert grouping.pause() == 0.0
    for _ in range(3):
        grouping.sweep()
    assert (looks, grouping.pause()) == ([1000.0], 60.0)
    now[0] += 59.0
    grouping.sweep()
    assert (len(looks), grouping.pause()) == (1, 1.0)
    now[0] += 1.0
    grouping.sweep()
    assert len(looks) == 2


def test_a_sweep_that_fails_is_told_and_harms_nobody(grouping, store, caplog):
    def claim(*arguments):
        raise Unavailable("down")

    store.groups().claim = claim
    with caplog.at_level(logging.WARNING):
        grouping.sweep()
    assert "cannot look for completed groups" in caplog.text


def test_a_sweep_finishes_all_that_was_left(broker, store):
    dead = Grouping(broker, store, "p", 0.0, plain)
    names = [f"g{n}" for n in range(250)]
    broker.errors = [Unavailable("down")]
    with pytest.raises(Unavailable):
        opened(dead, *names, size=0)
    Grouping(broker, store, "another place", 60.0, plain).sweep()
    assert broker.log == []
    Grouping(broker, store, "p", 60.0, plain).sweep()
    assert sorted(broker.log) == sorted(f"of {name}" for name in names)


def test_publishers_complete_groups_too(grouping, broker):
    opened(grouping, "empty", size=0)
    opened(grouping, "late", size=None)
    assert grouping.grow("late", 1, "k") is True
    grouping.add(last("late"))
    grouping.set_size("late", 0)
    assert broker.log == ["of empty", "of late"]
