"""What parent and child of a process pool say to each other, byte by byte."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import socket
import sys
import threading
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdf_engine import outcomes
from fsdf_engine.contracts import Delivery, Job, Outgoing, Record, Told
from fsdf_engine.core.pushes import keep_open, pushed_id
from fsdf_engine.core.telling import RemoteError
from fsdf_engine.errors import LeaseLost, PublishError, Unavailable
from fsdf_engine.outcomes import ELSEWHERE, SUCCEEDED, Failed, Retry, Succeeded
from fsdf_engine.pools import hand_off
from fsdf_engine.pools.channel import Channel, Frames
from fsdf_engine.pools.ledger import SPACE, Ledger

texts = st.text(st.characters(codec="utf-8"), max_size=30)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


def job_of(**fields):
    job = Job()
    job.id, job.attempt, job.published_at = "", 0, 0.0
    job.delivery, job.extra, job.pushes = Delivery((0, 0), b"{}"), {}, None
    for name, value in fields.items():
        setattr(job, name, value)
    return job


def returned(outcome, **fields):
    """Send an outcome from child to parent."""
    report = hand_off.encode_ended(7, job_of(**fields), outcome, 0.25)
    (got,) = hand_off.ended_runs(report)
    assert (got.number, got.seconds) == (7, 0.25)
    return hand_off.decode_ended(got.kind, got.payload)[0]


# ---------------------------------------------------------------------- hand-offs


@given(
    st.lists(
        st.tuples(
            texts, st.binary(max_size=200), st.integers(0, 2**31), st.integers(0, 2**31),
            st.floats(0, 2e9), texts,
            st.none() | st.dictionaries(texts, plain, max_size=3),
            st.none() | st.dictionaries(texts, texts, max_size=3), st.integers(-9, 9),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_hand_off_arrives_as_it_was_given(jobs):
    parts = []
    for n, (id, body, attempt, deliveries, published_at, name, *sent) in enumerate(jobs):
        state, headers, priority = sent
        delivery = Delivery((1, n), body, name, deliveries, state, headers, 0.0, priority)
        job = job_of(id=id, attempt=attempt, published_at=published_at, delivery=delivery)
        parts.append(hand_off.encode_job(n + 1, 3, job))
    frame = hand_off.encode_hand_off([(3, "queue", "task")], parts)
    (whole,) = Frames().feed(frame)
    tasks, handed = hand_off.decode_hand_off(whole)
    assert tasks == [(3, "queue", "task")]
    assert [
        (h.id, h.delivery.body, h.attempt, h.delivery.deliveries, h.delivery.published_at,
         h.delivery.id, h.delivery.state, h.delivery.headers, h.delivery.priority)
        for h in handed
    ] == [(id, body, *rest) for id, body, *rest in jobs]  # fmt: skip
    assert [(h.number, h.task) for h in handed] == [(n + 1, 3) for n in range(len(jobs))]


def test_known_tasks_are_not_named_again():
    tasks, handed = hand_off.decode_hand_off(hand_off.encode_hand_off([], [])[4:])
    assert (tasks, handed) == ([], [])


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 30))
def test_frames_come_out_whole_whatever_the_pieces(bodies, piece):
    stream = b"".join(hand_off.LENGTH.pack(len(body)) + body for body in bodies)
    frames, found = Frames(), []
    for at in range(0, len(stream), piece):
        found += frames.feed(stream[at : at + piece])
    assert found == bodies


def test_pieces_of_a_large_frame_are_joined_once_and_not_again_with_each():
    pieces = [hand_off.LENGTH.pack(300), *[bytes([n]) * 100 for n in range(3)]]
    frames = Frames()
    for count, piece in enumerate(pieces[:-1], 1):
        assert frames.feed(piece) == []
        assert [id(kept) for kept in frames._pieces] == [id(piece) for piece in pieces[:count]]
    assert frames.feed(pieces[-1]) == [b"".join(pieces[1:])]
    assert frames._pieces == []


def test_channel_goes_on_after_an_interrupted_receive():
    """A signal handler's exception in the middle of a frame loses nothing of it."""
    ours, theirs = socket.socketpair()

    class Interrupted(BaseException):
        pass

    class Socket:
        interrupted = False

        def setblocking(self, flag):
            theirs.setblocking(flag)

        def recv(self, size):
            if not self.interrupted:
                self.interrupted = True
                raise Interrupted
            return theirs.recv(3)

    with ours, theirs:
        channel = Channel(Socket())
        ours.sendall(hand_off.LENGTH.pack(5) + b"whole")
        with pytest.raises(Interrupted):
            channel.receive()
        assert channel.receive() == b"whole"
        ours.close()
        assert channel.receive() is None


# ---------------------------------------------------------------------- outcomes


@pytest.mark.parametrize("value", [7, object(), float("nan"), "\udc80", {1: 2}])
def test_a_value_stays_where_it_was_returned(value):
    assert returned(Succeeded(value)) is ELSEWHERE


def test_no_value_is_the_one_success():
    assert returned(SUCCEEDED) is SUCCEEDED


@pytest.mark.parametrize(
    "outcome",
    [
        outcomes.Requeue(2.5), outcomes.Continued(), outcomes.Rejected("why"),
        outcomes.TimedOut(3.0),
        outcomes.Expired(1e9), outcomes.Filtered("key"), outcomes.Revoked(),
        outcomes.Invalid("no"), outcomes.Unknown("task"), outcomes.Deferred(5.0, "permit"),
        outcomes.Lost(6), outcomes.Crashed(-9),
    ],
    ids=lambda outcome: type(outcome).__name__,
)  # fmt: skip
def test_every_kind_of_outcome_travels(outcome):
    got = returned(outcome)
    assert (type(got), got) == (type(outcome), outcome)


def test_no_kind_of_outcome_was_forgotten():
    every = {kind.__name__ for kind in outcomes.Outcome.__args__}
    assert every == {*hand_off._KINDS, "Succeeded", "Failed", "Retry"}


def test_what_a_retry_changes_comes_back_as_it_is():
    changes = {"args": [1, datetime.timedelta(3)], "kwargs": {"at": datetime.date(2026, 1, 31)}}
    assert returned(Retry(ValueError("v"), 0.0, 1, changes)).changes == changes


def test_attempt_and_seconds_come_back_with_the_outcome():
    report = hand_off.encode_ended(1, job_of(attempt=3), SUCCEEDED, 9.5)
    (got,) = hand_off.ended_runs(report * 1)
    assert (got.attempt, got.seconds) == (3, 9.5)


@given(
    st.sampled_from([SUCCEEDED, Succeeded(object()), Failed(ValueError("v")), outcomes.Revoked()]),
    st.lists(st.binary(max_size=99), max_size=4), texts,
)  # fmt: skip
def test_effects_travel_with_the_outcome_they_were_made_of(outcome, bodies, failure):
    effects = [
        Outgoing("q", f"{n}", body, {"h": "v"}, 1.5, 2.5, -9, 3.5, "key") if n % 2
        else Record(f"{n}", body, 3, False, 60.0, "inbox", 2, "origin", 1)
        for n, body in enumerate(bodies)
    ]  # fmt: skip
    job = job_of(told=Told(outcome, effects, failure))
    (got,) = hand_off.ended_runs(hand_off.encode_ended(7, job, outcome, 0.25))
    came, told = hand_off.decode_ended(got.kind, got.payload)
    assert type(came) is type(outcome)
    assert told.outcome is came
    assert told.failure == failure
    assert [fields_of(effect) for effect in told.effects] == list(map(fields_of, effects))


def fields_of(effect):
    return type(effect), [getattr(effect, name) for name in type(effect).__slots__]


def test_the_json_of_a_value_travels_for_the_sink_that_needs_no_more():
    outcome = Succeeded([1, 2])
    job = job_of(told=b"[1,2]")
    (got,) = hand_off.ended_runs(hand_off.encode_ended(7, job, outcome, 0.25))
    assert hand_off.decode_ended(got.kind, got.payload) == (ELSEWHERE, b"[1,2]")
    (got,) = hand_off.ended_runs(hand_off.encode_ended(7, job, outcomes.TimedOut(1.0), 0.25))
    assert hand_off.decode_ended(got.kind, got.payload) == (outcomes.TimedOut(1.0), None)


def test_effects_made_of_another_outcome_do_not_travel():
    job = job_of(told=Told(SUCCEEDED, [Record("1", b"{}")]))
    (got,) = hand_off.ended_runs(hand_off.encode_ended(7, job, outcomes.TimedOut(1.0), 0.25))
    assert hand_off.decode_ended(got.kind, got.payload) == (outcomes.TimedOut(1.0), None)


def test_how_many_messages_a_run_has_pushed_comes_back():
    job = job_of()
    ids = [pushed_id(job), pushed_id(job)]
    (got,) = hand_off.ended_runs(hand_off.encode_ended(7, job, SUCCEEDED, 0.25))
    assert (got.base, got.push, got.pushes) == (0, 0, 2)
    keep_open(other := job_of(), got.base, got.push, got.pushes)
    assert (following := pushed_id(other)) not in ids
    assert following == pushed_id(job)


# ---------------------------------------------------------------------- exceptions


@pytest.mark.parametrize(
    "error",
    [
        ValueError("text", 3), KeyError("key"), SystemExit(3), KeyboardInterrupt(),
        FileNotFoundError(2, "No such file or directory", "name"),
        json.JSONDecodeError("m", "d", 0),
        LeaseLost("gone"), Unavailable("down"), outcomes.Deadline(), outcomes.Interrupted(),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_exceptions_of_imported_classes_come_back(error):
    outcome = returned(Failed(error))
    assert str(outcome.error) == str(error)
    if not isinstance(error, json.JSONDecodeError):  # its constructor wants more than its args
        assert type(outcome.error) is type(error)
        assert outcome.error.args == error.args


def test_exceptions_of_main_are_those_of_the_parents_main():
    kind = type("Mine", (Exception,), {"__module__": "__mp_main__"})
    assert hand_off._encode_error(kind("x"))["module"] == "__main__"


def test_class_that_is_no_exception_is_not_called():
    called = []
    kind = type("Thing", (), {"__init__": lambda self, *args: called.append(args)})
    hand_off.Thing = kind
    try:
        sent = {"module": hand_off.__name__, "name": "Thing", "args": [], "message": "m"}
        error = hand_off._decode_error(sent)
    finally:
        del hand_off.Thing
    assert not called
    assert isinstance(error, RemoteError)


def test_exception_whose_str_fails_still_comes_back():
    class Silent(Exception):
        def __str__(self):
            raise RuntimeError

    assert "Silent without text" in str(returned(Failed(Silent())).error)


@pytest.mark.parametrize("own", ["__init__", "__new__", "__str__", "__repr__", "__getattribute__"])
def test_an_exception_whose_class_has_code_of_its_own_is_not_made_in_the_parent(monkeypatch, own):
    ran = []

    def note(*args, **kwargs):
        ran.append(own)
        return getattr(ValueError, own)(*args, **kwargs)

    kind = type("Noisy", (ValueError,), {own: note, "__module__": __name__})
    monkeypatch.setitem(globals(), "Noisy", kind)
    job, outcome = job_of(), Failed(kind("text"))
    report = hand_off.encode_ended(7, job, outcome, 0.25)
    ran.clear()
    (got,) = hand_off.ended_runs(report)
    came, _ = hand_off.decode_ended(got.kind, got.payload)
    assert not ran
    assert (type(came.error).__name__, str(came.error)) == ("Noisy", "text")
    assert isinstance(came.error, RemoteError)
    monkeypatch.setitem(globals(), "Noisy", type("Noisy", (ValueError,), {"__module__": __name__}))
    came, _ = hand_off.decode_ended(got.kind, got.payload)
    assert type(came.error) is Noisy  # noqa: F821


def test_a_module_that_makes_names_when_asked_is_not_asked():
    class Lazy(ModuleType):
        def __getattribute__(self, name):
            raise AssertionError(name)

    sys.modules["lazy_module"] = Lazy("lazy_module")
    try:
        assert outcomes.class_of("lazy_module", "Missing") is None
    finally:
        del sys.modules["lazy_module"]
    assert outcomes.class_of("builtins", "dict") is None
    assert outcomes.class_of("json.decoder", "JSONDecodeError") is json.JSONDecodeError


def test_retry_keeps_its_error_delay_and_attempt():
    outcome = returned(Retry(ValueError("later"), 2.5, 4))
    assert (type(outcome.error), outcome.delay, outcome.attempt) == (ValueError, 2.5, 4)


# ---------------------------------------------------------------------- commits


EFFECTS = (
    Outgoing("q", "1", b"\xff", {"h": "v"}, 1.5, 2.5, 9, 3.5, "key"),
    Record("2", b"{}", 3, False, 60.0, "inbox"),
)


def test_commits_travel_whole():
    (frame,) = Frames().feed(hand_off.encode_commit(5, 6, EFFECTS))
    request, number, effects = hand_off.decode_commit(frame)
    assert (request, number) == (5, 6)
    for sent, got in zip(EFFECTS, effects, strict=True):
        assert type(got) is type(sent)
        assert all(getattr(got, name) == getattr(sent, name) for name in type(sent).__slots__)


@pytest.mark.parametrize("error", [None, LeaseLost("gone"), Unavailable("down"), ValueError("v")])
def test_replies_carry_the_error(error):
    (frame,) = Frames().feed(hand_off.encode_reply(5, error, EFFECTS))
    request, got = hand_off.decode_reply(frame, EFFECTS)
    assert (request, type(got), str(got)) == (5, type(error), str(error))


def test_publish_error_names_the_childs_own_messages():
    first, second, third = (Outgoing("q", str(n), b"") for n in range(3))
    effects = [first, second, third]
    (frame,) = Frames().feed(hand_off.encode_reply(1, PublishError([third], [first]), effects))
    _, error = hand_off.decode_reply(frame, effects)
    assert (error.rejected, error.unknown) == ([third], [first])


class Refused(Exception):
    """As a client's error: made of more than it tells."""

    def __init__(self, code, text):
        super().__init__(f"{code} {text}")


@pytest.mark.parametrize(
    "cause", [Unavailable("Redis at h:1 is away"), TimeoutError(), Refused(406, "no")]
)
def test_publish_error_keeps_what_its_cause_told(cause):
    sent = PublishError([EFFECTS[0]])
    sent.__cause__ = cause
    (frame,) = Frames().feed(hand_off.encode_reply(1, sent, EFFECTS))
    _, error = hand_off.decode_reply(frame, EFFECTS)
    assert str(error) == str(sent)
    assert error.__cause__ is not cause


# ---------------------------------------------------------------------- the shared memory


@pytest.fixture(scope="module")
def context():
    return multiprocessing.get_context("spawn")


@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=30))
def test_ledger_gives_what_was_written_in_order(pieces):
    """However often the ring wraps; what does not fit is refused and changes nothing."""
    ledger = Ledger(multiprocessing.get_context("spawn"))
    written, read = b"", b""
    for piece in pieces:
        if ledger.write(piece):
            written += piece
        else:
            assert len(written) - len(read) + len(piece) > SPACE
            read += ledger.read()
            assert read == written
    assert read + ledger.read() == written
    assert ledger.read() == b""


def test_ledger_is_read_up_to_a_position(context):
    ledger = Ledger(context)
    ledger.write(b"first")
    position = ledger.written()
    ledger.write(b"second")
    assert ledger.read(position) == b"first"
    assert ledger.read(position) == b""
    assert ledger.read() == b"second"


def test_job_that_was_taken_back_does_not_start(context):
    ledger = Ledger(context)
    assert ledger.start(1)
    with ledger.lock:
        ledger.take_back(3)
    assert not ledger.start(2)
    assert not ledger.start(3)
    assert ledger.started() == 1
    assert ledger.start(4)
    assert ledger.started() == 4


def test_each_job_is_started_or_taken_back_never_both(context):
    """The two sides race for every job of a thousand."""
    ledger, started, taken = Ledger(context), [], []

    def child():
        for number in range(1, 1001):
            if ledger.start(number):
                started.append(number)

    thread = threading.Thread(target=child)
    thread.start()
    while thread.is_alive():
        with ledger.lock:
            first = ledger.started()
            ledger.take_back(min(first + 5, 1000))
            taken += range(max(first, *taken[-1:], 0) + 1, min(first + 5, 1000) + 1)
    thread.join()
    assert sorted(started + taken) == list(range(1, 1001))


def test_ledger_says_once_per_half_that_it_fills():
    ledger, piece = Ledger(multiprocessing.get_context("spawn")), b"x" * (SPACE // 8)
    filled = []
    for _ in range(16):
        assert ledger.write(piece)
        filled.append(ledger.fills())
        if filled[-1]:
            ledger.written()
            ledger.read()
    assert filled == [n % 5 == 4 for n in range(16)]
