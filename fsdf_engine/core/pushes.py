"""The ids of what a run pushes. Pure.

They derive from the message's id, a base and a number, so that a repeat gives them again. The base
of an attempt is its own number, and how often the message was sent anew; but while it is unknown
whether a push of an attempt before was stored, the base stays, until the same push has been made
again and answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..contracts import Job, Outgoing
from ..errors import LeaseLost, PublishError, Unanswered, Unavailable
from ..message import derived_id, sends_of

__all__ = ["Pushes", "answers", "keep_open", "next_attempt", "open_push", "pushed", "pushed_id"]


class Pushes:
    """What one attempt of a job has pushed. One thread at a time; a run's own matter."""

    __slots__ = ("base", "count", "made", "open")

    def __init__(self, base: int) -> None:
        self.base, self.count = base, 0
        self.made: dict[str, int] = {}  # number by id, not yet sent
        self.open: dict[str, int] = {}  # sent, and not answered


def _pushes_of(job: Job) -> Pushes:
    if not job.pushes:
        told = (job.delivery.state or {}).get("pushes") or job.extra.get("pushes")
        told = told if type(told) is list else ()
        bits = zip(told, (31, 62, 31))
        numbers = [n for n, most in bits if type(n) is int and 0 <= n < 1 << most]
        if len(numbers) == 3 and numbers[0] == job.attempt:
            keep_open(job, *numbers[1:])
        else:
            job.pushes = Pushes(sends_of(job.extra) << 31 | job.attempt)
    return job.pushes  # type: ignore[no-any-return]


def keep_open(job: Job, base: int, number: int, count: int = 0) -> None:
    """Let the ids of a job derive from `base` while the push of that number has no answer.

    `count` pushes were made already, where the attempt is the same.
    """
    job.pushes = Pushes(base)
    job.pushes.count = count
    if number:
        job.pushes.open[_id(job, base, number)] = number


def _id(job: Job, base: int, number: int) -> str:
    return derived_id(job.id, base, number)


def pushed_id(job: Job) -> str:
    """Return the id of the next message that the run pushes."""
    pushes = _pushes_of(job)
    pushes.count += 1
    id = _id(job, pushes.base, pushes.count)
    pushes.made[id] = pushes.count
    return id


def open_push(job: Job) -> tuple[int, int] | None:
    """Return (base, number) of the last push without an answer, for the attempt that follows."""
    if not job.pushes and not job.attempt:  # nothing is known of it from before
        return None
    pushes = _pushes_of(job)
    return (pushes.base, max(pushes.open.values())) if pushes.open else None


def pushed(job: Job) -> tuple[int, int, int]:
    """Return (base, number of the last push without an answer, how many there were)."""
    pushes = _pushes_of(job)
    return pushes.base, max(pushes.open.values(), default=0), pushes.count


def next_attempt(job: Job, attempt: int) -> None:
    """Go on with another attempt of a job, in place."""
    kept = open_push(job)
    job.attempt, job.pushes = attempt, None
    if kept:
        keep_open(job, *kept)


@contextmanager
def answers(job: Job, batch: Sequence[Outgoing]) -> Iterator[None]:
    """Publish a batch of a run's messages inside: what of them has no answer stays open."""
    if (pushes := job.pushes) is None:
        yield
        return
    numbers = {item.id: pushes.made.pop(item.id) for item in batch if item.id in pushes.made}
    pushes.open |= numbers
    unknown = {item.id for item in batch}
    try:
        yield
        unknown = set()
    except Unanswered:
        raise
    except (Unavailable, LeaseLost):
        unknown = set()  # nothing was sent
        raise
    except PublishError as error:
        unknown = {item.id for item in error.unknown}
        raise
    finally:
        for id in numbers.keys() - unknown:
            pushes.open.pop(id, None)
