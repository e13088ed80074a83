"""What parent and child of a process pool say to each other: frames of bytes. Pure.

Nothing is pickled. Jobs go to the child as the bytes that the broker gave, outcomes come back as
structs and JSON, and an exception is built again only from a class that the parent has imported.

Hand-offs and commits:   length, length of the head, the head as JSON, bodies
Outcomes:                number, kind, attempt, base, push, seconds, started, length, payload
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, NamedTuple, TypeAlias, get_args

import orjson

from .. import codec
from ..contracts import Delivery, Effect, Job, Outgoing, Record
from ..core.pushes import open_push
from ..errors import FsdfError, PublishError
from ..outcomes import (
    SUCCEEDED,
    TRACE,
    Failed,
    Outcome,
    Retry,
    Succeeded,
    args_of,
    kind_of,
    rebuilt,
    text_of,
    trace_of,
)  # fmt: skip

__all__ = [
    "Handed", "RemoteError", "RemoteValue", "Report", "decode_commit", "decode_hand_off",
    "decode_outcome", "decode_reply", "encode_commit", "encode_hand_off", "encode_job",
    "encode_outcome", "encode_reply", "reports",
]  # fmt: skip

LENGTH = Struct("<I")
_REPORT = Struct("<IBIIIddI")  # the fields of a Report, with the payload's length at the end
_NOTHING, _VALUE, _OTHER = range(3)
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Outcome)}


class RemoteError(FsdfError):
    """An exception of a child process whose class the parent has not imported.

    Raised as a subclass that has the original's name and module.
    """


class RemoteValue:
    """A returned value that has no JSON form; only its text came back."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


Part: TypeAlias = tuple[tuple[Any, ...], bytes]  # the head and the body of a job


class Handed(NamedTuple):
    """One job as it arrives in the child."""

    number: int
    task: int
    attempt: int
    id: str
    delivery: Delivery


class Report(NamedTuple):
    """One outcome as it arrives in the parent; `seconds` is how long the run took.

    `base` and `push` name its last push without an answer, if `push` is not 0.
    """

    number: int
    kind: int
    attempt: int
    base: int
    push: int
    seconds: float
    started_at: float
    payload: bytes


# ------------------------------------------------------------------ hand-offs


def encode_job(number: int, task: int, job: Job) -> Part:
    """Return one job's part of a hand-off; `task` is what the hand-off or an earlier one named."""
    sent = job.delivery
    body = sent.body
    return (
        number, task, job.id, job.attempt, job.published_at, sent.id, sent.deliveries, sent.state,
        sent.headers, len(body),
    ), body  # fmt: skip


def encode_hand_off(tasks: Sequence[tuple[int, str, str]], jobs: Sequence[Part]) -> bytes:
    """Return a whole frame; `tasks` are (number, queue, name) that the child does not know yet."""
    return _frame([tasks, [head for head, _ in jobs]], [body for _, body in jobs])


def decode_hand_off(frame: bytes) -> tuple[Sequence[tuple[int, str, str]], Sequence[Handed]]:
    """Return the tasks and jobs of a frame without its length."""
    (tasks, heads), at = _head(frame)
    jobs = []
    for number, task, id, attempt, published_at, name, deliveries, state, headers, size in heads:
        body = frame[at : at + size]
        at += size
        delivery = Delivery((0, 0), body, name, deliveries, state, headers, published_at)
        jobs.append(Handed(number, task, attempt, id, delivery))
    return [tuple(task) for task in tasks], jobs


def _frame(head: Any, bodies: Sequence[bytes]) -> bytes:
    text = orjson.dumps(head)
    size = LENGTH.size + len(text) + sum(map(len, bodies))
    return b"".join((LENGTH.pack(size), LENGTH.pack(len(text)), text, *bodies))


def _head(frame: bytes) -> tuple[Any, int]:
    """Return the head of a frame without its length, and where the bodies begin."""
    at = LENGTH.size + LENGTH.unpack_from(frame)[0]
    return orjson.loads(frame[LENGTH.size : at]), at


# ------------------------------------------------------------------ outcomes


def encode_outcome(number: int, job: Job, outcome: Outcome, seconds: float) -> bytes:
    """Return the report of a run that took `seconds`; never fails on account of user values."""
    if outcome is SUCCEEDED:
        kind, payload = _NOTHING, b""
    elif type(outcome) is Succeeded:
        kind, payload = _VALUE, _encode_value(outcome.value)
    else:
        kind, payload = _OTHER, _encode_other(outcome)
    base, push = (kind == _OTHER and open_push(job)) or (0, 0)
    told = (job.attempt, base, push, seconds, job.started_at, len(payload))
    return _REPORT.pack(number, kind, *told) + payload


def _encode_value(value: Any) -> bytes:
    """JSON; a value that has none leaves its text, behind a byte that JSON cannot begin with."""
    try:
        return codec.dumps(codec.plain(value))
    except (TypeError, ValueError, RecursionError):
        return b"!" + text_of(value, repr).encode()


def _encode_other(outcome: Outcome) -> bytes:
    fields = list(outcome)
    if isinstance(outcome, Failed | Retry):
        failed = outcome if isinstance(outcome, Failed) else Failed(outcome.error)
        fields[0] = _encode_error(outcome.error, trace_of(failed))
        if failed is outcome:
            fields[1] = fields[0]["trace"]
    return orjson.dumps([type(outcome).__name__, *fields], default=str)


def reports(data: bytes) -> Iterator[Report]:
    """Split what a child has written."""
    at, total = 0, len(data)
    while at < total:
        *head, size = _REPORT.unpack_from(data, at)
        at += _REPORT.size
        yield Report._make((*head, data[at : at + size]))
        at += size


def decode_outcome(kind: int, payload: bytes) -> Outcome:
    """Return the outcome of a report."""
    if kind == _NOTHING:
        return SUCCEEDED
    if kind == _VALUE:
        if payload[:1] == b"!":
            return Succeeded(RemoteValue(payload[1:].decode()))
        return Succeeded(codec.loads(payload))
    name, *fields = orjson.loads(payload)
    if name in ("Failed", "Retry"):
        fields[0] = _decode_error(fields[0])
    return _KINDS[name](*fields)  # type: ignore[no-any-return]


# ------------------------------------------------------------------ exceptions


class _RemoteTrace(Exception):
    """The cause of an exception that travelled: where it was raised, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _encode_error(error: BaseException, trace: str = "") -> dict[str, Any]:
    """Return an exception as JSON; its arguments only where they have a JSON form."""
    module, _ = kind_of(error)
    try:
        given = list(args_of(error))
        if isinstance(error, OSError) and error.filename is not None:
            given = [error.errno, error.strerror, error.filename]  # `args` leaves the name out
        text = codec.dumps(codec.plain(given))
        args = orjson.loads(text) if len(text) <= TRACE else None
    except BaseException:  # user code: whatever it does, the parent learns that the run failed
        args = None
    return {
        "module": {"__mp_main__": "__main__"}.get(module, module),
        "name": type.__dict__["__qualname__"].__get__(type(error)),
        "args": args,
        "message": text_of(error),
        "trace": trace,
    }


def _decode_error(sent: dict[str, Any]) -> BaseException:
    """Build the exception again, with the remote traceback as its cause."""
    error: BaseException | None = None
    with contextlib.suppress(Exception):  # an argument that looks like a typed value and is none
        error = rebuilt(sent["module"], sent["name"], codec.loads(orjson.dumps(sent["args"])))
    if error is None or text_of(error) != sent["message"]:
        name = sent["name"].rpartition(".")[2]
        kind: type[RemoteError] = type(name, (RemoteError,), {"__module__": sent["module"]})
        error = kind(sent["message"])
    if sent["trace"]:
        # not by its own `__setattr__`, which may refuse, as that of a frozen dataclass does
        BaseException.__dict__["__cause__"].__set__(error, _RemoteTrace(sent["trace"]))
    return error


# ------------------------------------------------------------------ commits in the middle of a run


def encode_commit(request: int, number: int, effects: Sequence[Effect], ack: bool) -> bytes:
    """Return a frame that asks the parent to store the effects of the run `number`."""
    heads = []
    for effect in effects:
        names = _OUTGOING if (outgoing := type(effect) is Outgoing) else _RECORD
        heads.append([outgoing, len(effect.body), *(getattr(effect, name) for name in names)])
    return _frame([request, number, ack, heads], [effect.body for effect in effects])


_OUTGOING = ("queue", "id", "headers", "delay", "not_before", "priority", "ttl", "key")
_RECORD = ("id", "deliveries", "final", "expires", "reply", "sends", "origin")


def decode_commit(frame: bytes) -> tuple[int, int, bool, list[Effect]]:
    """Return (request, number of the job, ack, effects) of a frame without its length."""
    (request, number, ack, heads), at = _head(frame)
    effects: list[Effect] = []
    for outgoing, size, *fields in heads:
        body = frame[at : at + size]
        at += size
        if outgoing:
            effects.append(Outgoing(body=body, **dict(zip(_OUTGOING, fields))))
        else:
            effects.append(Record(body=body, **dict(zip(_RECORD, fields))))
    return request, number, ack, effects


def encode_reply(request: int, error: BaseException | None, effects: Sequence[Effect]) -> bytes:
    """Return the frame that answers a commit."""
    sent: Any = None
    if isinstance(error, PublishError):
        places = {id(effect): n for n, effect in enumerate(effects)}
        sent = [
            [places[id(o)] for o in group if id(o) in places]
            for group in (error.rejected, error.unknown)
        ]
    elif error is not None:
        sent = _encode_error(error)
    body = orjson.dumps([request, sent])
    return LENGTH.pack(len(body)) + body


def decode_reply(frame: bytes, effects: Sequence[Any]) -> tuple[int, BaseException | None]:
    """Return (request, the error to raise) of a frame without its length."""
    request, sent = orjson.loads(frame)
    if sent is None:
        return request, None
    if isinstance(sent, dict):
        return request, _decode_error(sent)
    rejected, unknown = ([effects[n] for n in group] for group in sent)
    return request, PublishError(rejected, unknown)
