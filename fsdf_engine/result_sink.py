"""The sink of results: one record, in JSON, for every outcome that ends a message. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from orjson import Fragment, dumps

from . import codec, outcomes
from .contracts import Effect, Job, Record, Sink
from .message import sends_of
from .outcomes import Failed, Outcome, Retry, Succeeded, args_of, cut, kind_of, text_of

__all__ = ["result_sink"]
MOST = 20  # arguments of an exception that are told


def result_sink(expires: float) -> Sink:
    """Return a sink that stores one record for every outcome that ends a message."""

    def sink(job: Job, outcome: Outcome) -> Sequence[Effect]:
        final = type(outcome) is Succeeded or outcomes.ended(outcome)
        if not final and type(outcome) is not Retry:
            return ()
        extra, name = job.extra, job.plan.queue
        reply, published = extra.get("reply"), extra.get("publish_time")
        # what tells the message from any other of its id: redelivered, retried or replayed it has
        # the same, and nobody can guess it who has not seen the message; a bare one claims no id
        try:
            origin = _digest(name, published, reply) if extra else _digest(name)
        except TypeError:  # one of them is a list or an object
            origin = _digest.__wrapped__(name, published, reply)
        reply = reply if type(reply) is str else ""
        lives = job.delivery.deliveries, final, expires, reply, sends_of(extra)
        told = _told(job.id, outcome, published, name, job.plan.name, job.attempt, time.time())
        return (Record(job.id, told, *lives, origin, job.attempt),)

    def of_json(jobs: Sequence[Job], now: float) -> Sequence[Sequence[Effect]]:
        found, last, origin, facts = list[Sequence[Effect]](), None, "", b""
        for job in jobs:
            extra, plan = job.extra, job.plan
            told: Any = job.told
            published, reply = extra.get("publish_time"), extra.get("reply")
            if type(published) is not float or not (reply is None or type(reply) is str):
                found.append(sink(job, Succeeded(Fragment(told))))
                continue
            alike = published, reply, plan.queue, plan.name, job.attempt
            if alike != last:
                (origin, facts), last = _alike(*alike, now), alike
            body = b'{"task_id":%b%b%b}' % (dumps(job.id), facts, told)
            lives = job.delivery.deliveries, True, expires, reply or ""
            sends = sends_of(extra) if "sends" in extra else 0
            found.append((Record(job.id, body, *lives, sends, origin, job.attempt),))
        return found

    setattr(sink, "of_json", of_json)  # noqa: B010  a function has no attributes for mypy
    return sink


@lru_cache(256, typed=True)  # messages that were pushed together have the same
def _digest(queue: str, *sent: object) -> str:
    from hashlib import blake2b  # slow to import, and only results need it

    text = ":".join([queue, *map(repr, sent)]).encode(errors="backslashreplace")
    return blake2b(text, digest_size=8).hexdigest()


@lru_cache(256)  # those that were pushed together end together, too
def _alike(published: float, reply: str | None, *of: Any) -> tuple[str, bytes]:
    """Return the origin of a success, and what is told of it between its id and its value."""
    told = _told("", Succeeded(Fragment(b"")), published, *of)
    return _digest(of[0], published, reply), told[len(b'{"task_id":""') : -1]


def _told(
    id: str, outcome: Outcome, published: object, queue: str, task: str, attempt: int, now: float
) -> bytes:
    """Return what a waiter learns."""
    told = {
        "task_id": id,  # these two first: waiters look for them there
        "publish_time": published if type(published) in (float, int) else None,
        "status": type(outcome).__name__.lower(),
        "queue": queue,
        "task": task,
        "attempt": attempt,
        "ended_at": int(now * 1e4) / 1e4,
    }
    if type(outcome) is Succeeded:
        value = outcome.value
        told["result"] = value if type(value) is Fragment else codec.plain(value)
    else:
        told.update(_why(outcome))
    return codec.dumps(told)


def _why(outcome: Outcome) -> Mapping[str, Any]:
    try:
        return _reasons(outcome)
    except (outcomes.Deadline, outcomes.Interrupted):  # meant for the run that this is part of
        raise
    except BaseException as error:  # of a user's class; that it ended is told in any case
        return {"reason": f"no reason can be told: {kind_of(error)[1]}"}


def _reasons(outcome: Outcome) -> Mapping[str, Any]:
    why: dict[str, Any] = {"reason": outcomes.describe(outcome)}
    if isinstance(outcome, (Failed, Retry)):
        module, name = kind_of(outcome.error)
        why["error"] = {"type": name, "module": module, "args": _arguments(outcome.error)}
        why["traceback"] = outcomes.trace_of(outcome)
    return why


def _arguments(error: BaseException) -> list[Any] | None:
    """Return what an exception was made with, None where that is a lot."""
    args = args_of(error)
    return [_argument(value) for value in args] if len(args) <= MOST else None


def _argument(value: Any) -> Any:
    """Return an exception's argument as it is, where JSON has it; else its text."""
    try:
        if isinstance(value, (str, int, float)):
            plain = codec.loads(codec.dumps(codec.plain(value)))
            return cut(plain, outcomes.REASON) if type(plain) is str else plain
    except Exception:  # no form of it is JSON
        pass
    return text_of(value, repr)
