"""What parent and child of a process pool say to each other, byte by byte."""

from __future__ import annotations

import json
import multiprocessing
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdf_engine import outcomes
from fsdf_engine.contracts import Delivery, Job, Outgoing, Record
from fsdf_engine.errors import LeaseLost, PublishError, Unavailable
from fsdf_engine.outcomes import SUCCEEDED, Failed, Retry, Succeeded
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
    job.id, job.attempt, job.published_at, job.started_at = "", 0, 0.0, 0.0
    job.delivery, job.extra, job.pushes = Delivery((0, 0), b"{}"), {}, None
    for name, value in fields.items():
        setattr(job, name, value)
    return job


def returned(outcome, **fields):
    """Send an outcome from child to parent."""
    report = hand_off.encode_outcome(7, job_of(**fields), outcome, 0.25)
    (got,) = hand_off.reports(report)
    assert (got.number, got.seconds) == (7, 0.25)
    return hand_off.decode_outcome(got.kind, got.payload)


# ---------------------------------------------------------------------- hand-offs


@given(
    st.lists(
        st.tuples(
            texts, st.binary(max_size=200), st.integers(0, 2**31), st.integers(0, 2**31),
            st.floats(0, 2e9), texts,
            st.none() | st.dictionaries(texts, plain, max_size=3),
            st.none() | st.dictionaries(texts, texts, max_size=3),
        ),
        max_size=5,
    )
)  # fmt: skip
def test_hand_off_arrives_as_it_was_given(jobs):
    parts = []
    for n, (id, body, attempt, deliveries, published_at, name, state, headers) in enumerate(jobs):
        delivery = Delivery((1, n), body, name, deliveries, state, headers)
        job = job_of(id=id, attempt=attempt, published_at=published_at, delivery=delivery)
        parts.append(hand_off.encode_job(n + 1, 3, job))
    frame = hand_off.encode_hand_off([(3, "queue", "task")], parts)
    (whole,) = Frames().feed(frame)
    tasks, handed = hand_off.decode_hand_off(whole)
    assert tasks == [(3, "queue", "task")]
    assert [
        (h.id, h.delivery.body, h.attempt, h.delivery.deliveries, h.delivery.published_at,
         h.delivery.id, h.delivery.state, h.delivery.headers)
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


@given(plain)
def test_values_come_back_as_json_gives_them(value):
    outcome = returned(Succeeded(value))
    assert outcome == Succeeded(value)


def test_no_value_is_the_one_success():
    assert returned(SUCCEEDED) is SUCCEEDED


@pytest.mark.parametrize(
    "outcome",
    [
        outcomes.Requeue(2.5), outcomes.Rejected("why"), outcomes.TimedOut(3.0),
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


def test_attempt_and_start_come_back_with_the_outcome():
    report = hand_off.encode_outcome(1, job_of(attempt=3, started_at=9.5), SUCCEEDED, 0.0)
    (got,) = hand_off.reports(report * 1)
    assert (got.attempt, got.started_at) == (3, 9.5)


@pytest.mark.parametrize("value", [object(), float("nan"), 2**70, "\udc80", {1: 2}, [set, 1]])
def test_values_without_json_leave_their_text(value):
    outcome = returned(Succeeded(value))
    assert isinstance(outcome.value, hand_off.RemoteValue)


def test_value_whose_repr_fails_still_comes_back():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    assert "Broken without text" in repr(returned(Succeeded(Broken())).value)


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
        error = hand_off._decode_error({**sent, "trace": ""})
    finally:
        del hand_off.Thing
    assert not called
    assert isinstance(error, hand_off.RemoteError)


def test_exception_whose_str_fails_still_comes_back():
    class Silent(Exception):
        def __str__(self):
            raise RuntimeError

    assert "Silent without text" in str(returned(Failed(Silent())).error)


def test_retry_keeps_its_error_delay_and_attempt():
    outcome = returned(Retry(ValueError("later"), 2.5, 4))
    assert (type(outcome.error), outcome.delay, outcome.attempt) == (ValueError, 2.5, 4)


# ---------------------------------------------------------------------- commits


EFFECTS = (
    Outgoing("q", "1", b"\xff", {"h": "v"}, 1.5, 2.5, 9, 3.5, "key"),
    Record("2", b"{}", 3, False, 60.0, "inbox"),
)


def test_commits_travel_whole():
    (frame,) = Frames().feed(hand_off.encode_commit(5, 6, EFFECTS, True))
    request, number, ack, effects = hand_off.decode_commit(frame)
    assert (request, number, ack) == (5, 6, True)
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
