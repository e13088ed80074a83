"""What parent and child of a process pool say to each other: frames of bytes. Pure.

Nothing is pickled. Jobs go to the child as the bytes that the broker gave, outcomes come back as
structs and JSON with the effects that were made of them, and a value stays where it was returned.
An exception is built again only from a class that the parent has imported, and in a way that runs
none of its code there.

Hand-offs and commits:   length, length of the head, the head as JSON, bodies
Ended runs:              number, kind, attempt, three of pushes, seconds, length, payload
Payload of a told one:   [outcome, failure, effects] as JSON, a line feed, bodies
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from operator import attrgetter
from struct import Struct
from typing import Any, NamedTuple, TypeAlias, get_args

import orjson

from .. import codec, outcomes
from ..contracts import Delivery, Effect, Job, Told
from ..core.pushes import pushed
from ..core.telling import is_quiet, stand_in
from ..errors import PublishError
from ..outcomes import ELSEWHERE, SUCCEEDED, Failed, Outcome, Retry, Succeeded

__all__ = [
    "Ended", "Handed", "decode_commit", "decode_ended", "decode_hand_off", "decode_reply",
    "encode_commit", "encode_ended", "encode_hand_off", "encode_job", "encode_reply", "ended_runs",
]  # fmt: skip

LENGTH = Struct("<I")
_ENDED = Struct("<IBIQIIdI")  # the fields of an Ended, with the payload's length at the end
_NOTHING, _RETURNED, _OTHER, _TOLD, _JSON = range(5)
_NO_EFFECTS = Told(SUCCEEDED)
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Outcome)}


# A task's number, queue, name and resolver, and whether its starts are told at once.
Named: TypeAlias = tuple[int, str, str, str, bool]
Part: TypeAlias = tuple[tuple[Any, ...], bytes]  # the head and the body of a job


class Handed(NamedTuple):
    """One job as it arrives in the child."""

    number: int
    task: int
    attempt: int
    id: str
    delivery: Delivery


class Ended(NamedTuple):
    """One run's end as it arrives in the parent; `seconds` is how long the run took.

    `base` is where the ids of its pushes derive from, `pushes` how many there were, and `push` the
    last one without an answer, 0 for none.
    """

    number: int
    kind: int
    attempt: int
    base: int
    push: int
    pushes: int
    seconds: float
    payload: bytes


# ------------------------------------------------------------------ hand-offs


def encode_job(number: int, task: int, job: Job) -> Part:
    """Return one job's part of a hand-off; `task` is what the hand-off or an earlier one named."""
    sent = job.delivery
    body = sent.body
    return (
        number, task, job.id, job.attempt, len(body), sent.id, sent.deliveries, sent.state,
        sent.headers, job.published_at, sent.priority,
    ), body  # fmt: skip


def encode_hand_off(tasks: Sequence[Named], jobs: Sequence[Part]) -> bytes:
    """Return a whole frame; `tasks` are those that the child does not know yet."""
    return _frame([tasks, [head for head, _ in jobs]], [body for _, body in jobs])


def decode_hand_off(frame: bytes) -> tuple[Sequence[Named], Sequence[Handed]]:
    """Return the tasks and jobs of a frame without its length."""
    (tasks, heads), at = _head(frame)
    jobs = []
    for number, task, id, attempt, size, *sent in heads:
        body = frame[at : at + size]
        at += size
        jobs.append(Handed(number, task, attempt, id, Delivery((0, 0), body, *sent)))
    return [tuple(task) for task in tasks], jobs


def _frame(head: Any, bodies: Sequence[bytes]) -> bytes:
    text = orjson.dumps(head)
    size = LENGTH.size + len(text) + sum(map(len, bodies))
    return b"".join((LENGTH.pack(size), LENGTH.pack(len(text)), text, *bodies))


def _head(frame: bytes) -> tuple[Any, int]:
    """Return the head of a frame without its length, and where the bodies begin."""
    at = LENGTH.size + LENGTH.unpack_from(frame)[0]
    return orjson.loads(frame[LENGTH.size : at]), at


# ------------------------------------------------------------------ ends


def encode_ended(number: int, job: Job, outcome: Outcome, seconds: float) -> bytes:
    """Return the report of a run that took `seconds`, with the effects that were made of it."""
    told: Told | bytes | None = getattr(job, "told", None)
    if type(told) is bytes and type(outcome) is Succeeded:
        kind, payload = _JSON, told
    elif type(told) is Told and told.outcome is outcome:
        kind, payload = _TOLD, _encode_told(told)
    elif outcome is SUCCEEDED:
        kind, payload = _NOTHING, b""
    elif type(outcome) is Succeeded:
        kind, payload = _RETURNED, b""
    else:
        kind, payload = _OTHER, orjson.dumps(_plain_outcome(outcome))
    base, push, pushes = pushed(job) if job.pushes or job.attempt else (0, 0, 0)
    run = (job.attempt, base, push, pushes, seconds, len(payload))
    return _ENDED.pack(number, kind, *run) + payload


def _encode_told(told: Told) -> bytes:
    if told.outcome is SUCCEEDED and not (told.effects or told.failure):
        return b""
    heads, bodies = _encode_effects(told.effects)
    outcome = None if type(told.outcome) is Succeeded else _plain_outcome(told.outcome)
    return b"".join((orjson.dumps((outcome, told.failure, heads)), b"\n", *bodies))


def _plain_outcome(outcome: Outcome) -> Sequence[Any]:
    fields = outcome._asdict()
    if isinstance(outcome, Failed | Retry):
        fields |= {"trace": outcomes.trace_of(outcome), "reason": outcomes.describe(outcome)}
        fields["error"] = _encode_error(outcome.error)
    if changes := fields.get("changes"):
        fields["changes"] = codec.plain(changes)
    return type(outcome).__name__, *fields.values()


def ended_runs(data: bytes) -> Iterator[Ended]:
    """Split what a child has written."""
    at, total = 0, len(data)
    while at < total:
        *head, size = _ENDED.unpack_from(data, at)
        at += _ENDED.size
        yield Ended._make((*head, data[at : at + size]))
        at += size


def decode_ended(kind: int, payload: bytes) -> tuple[Outcome, Told | bytes | None]:
    """Return the outcome of a report, and what was told of it if it has been told there.

    The value of a success is not here. Runs no code of the user's.
    """
    if kind == _NOTHING:
        return SUCCEEDED, None
    if kind == _RETURNED:
        return ELSEWHERE, None
    if kind == _JSON:
        return ELSEWHERE, payload
    if kind == _OTHER:
        return _decode_outcome(orjson.loads(payload)), None
    if not payload:
        return SUCCEEDED, _NO_EFFECTS
    head, _, bodies = payload.partition(b"\n")
    sent, failure, heads = orjson.loads(head)
    outcome = ELSEWHERE if sent is None else _decode_outcome(sent)
    return outcome, Told(outcome, _decode_effects(heads, bodies, 0), failure)


def _decode_outcome(sent: Sequence[Any]) -> Outcome:
    name, *fields = sent
    outcome = _KINDS[name](*fields)
    if isinstance(outcome, Failed | Retry):
        outcome = outcome._replace(error=_decode_error(outcome.error, outcome.trace))
    if isinstance(outcome, Retry):
        outcome = outcome._replace(changes=codec.revive(outcome.changes))
    return outcome  # type: ignore[no-any-return]


# ------------------------------------------------------------------ effects


class _Form(NamedTuple):
    """How effects of one kind travel: their fields in order, in place of the body its length."""

    make: Any
    fields: attrgetter[tuple[Any, ...]]
    body: int  # which of them is the body


def _form(kind: type[Any]) -> _Form:
    names = [field.name for field in dataclasses.fields(kind)]
    return _Form(kind, attrgetter(*names), names.index("body"))


_FORMS = tuple(_form(kind) for kind in get_args(Effect))
_NUMBERS = {form.make: number for number, form in enumerate(_FORMS)}


def _encode_effects(effects: Sequence[Effect]) -> tuple[list[Any], list[bytes]]:
    heads, bodies = [], []
    for effect in effects:
        number = _NUMBERS[type(effect)]
        _, fields, place = _FORMS[number]
        head = [number, *fields(effect)]
        bodies.append(body := head[place + 1])
        head[place + 1] = len(body)
        heads.append(head)
    return heads, bodies


def _decode_effects(heads: Sequence[Sequence[Any]], frame: bytes, at: int) -> list[Effect]:
    """Return effects whose bodies lie in the frame from `at` on."""
    effects: list[Effect] = []
    for number, *fields in heads:
        make, _, place = _FORMS[number]
        end = at + fields[place]
        fields[place] = frame[at:end]
        at = end
        effects.append(make(*fields))
    return effects


# ------------------------------------------------------------------ exceptions


class _RemoteTrace(Exception):
    """The cause of an exception that travelled: where it was raised, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _encode_error(error: BaseException) -> dict[str, Any]:
    """Return an exception as JSON; its arguments only where they have a JSON form."""
    module, _ = outcomes.kind_of(error)
    try:
        given = list(outcomes.args_of(error))
        if isinstance(error, OSError) and error.filename is not None:
            given = [error.errno, error.strerror, error.filename]  # `args` leaves the name out
        text = codec.dumps(codec.plain(given))
        args = orjson.loads(text) if len(text) <= outcomes.TRACE else None
    except BaseException:  # user code: whatever it does, the parent learns that the run failed
        args = None
    return {
        "module": {"__mp_main__": "__main__"}.get(module, module),
        "name": type.__dict__["__qualname__"].__get__(type(error)),
        "args": args,
        "message": outcomes.text_of(error),
    }


def _decode_error(sent: Any, trace: str = "") -> BaseException:
    """Build the exception again, with the remote traceback as its cause.

    Another one stands in for it where that would run code of its class.
    """
    module, name, message = sent["module"], sent["name"], sent["message"]
    error: BaseException | None = None
    if is_quiet(outcomes.class_of(module, name)):
        with contextlib.suppress(Exception):  # what looks like a typed value may be none
            error = outcomes.rebuilt(module, name, codec.loads(orjson.dumps(sent["args"])))
    if error is None or outcomes.text_of(error) != message:
        error = stand_in(module, name.rpartition(".")[2], message)
    if trace:
        # not by its own `__setattr__`, which may refuse, as that of a frozen dataclass does
        BaseException.__dict__["__cause__"].__set__(error, _RemoteTrace(trace))
    return error


# ------------------------------------------------------------------ commits in the middle of a run


def encode_commit(request: int, number: int, effects: Sequence[Effect]) -> bytes:
    """Return a frame that asks the parent to store the effects of the run `number`."""
    heads, bodies = _encode_effects(effects)
    return _frame([request, number, heads], bodies)


def decode_commit(frame: bytes) -> tuple[int, int, list[Effect]]:
    """Return (request, number of the job, effects) of a frame without its length."""
    (request, number, heads), at = _head(frame)
    return request, number, _decode_effects(heads, frame, at)


def encode_reply(request: int, error: BaseException | None, effects: Sequence[Effect]) -> bytes:
    """Return the frame that answers a commit."""
    sent: Any = None
    if isinstance(error, PublishError):
        places = {id(effect): n for n, effect in enumerate(effects)}
        groups = (error.rejected, error.unknown)
        sent = [[places[id(o)] for o in group if id(o) in places] for group in groups]
        sent.append(None if error.__cause__ is None else _encode_error(error.__cause__))
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
    rejected, unknown = ([effects[n] for n in group] for group in sent[:2])
    error = PublishError(rejected, unknown)
    error.__cause__ = None if sent[2] is None else _decode_error(sent[2])
    return request, error
