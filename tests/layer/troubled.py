"""A layer whose parts do what a message's header says: in its codec, runner, sinks or groups.

Child processes import this module.
"""

from __future__ import annotations

import os
import threading

from toy_wire import Listed

from fsdf_engine.contracts import Member, outcomes
from layer import toy

STAY = threading.Event()
MODE = os.environ.get("LAYER_MODE", "threads")


class Nameless:
    """Is nothing that anybody expects, and says nothing of itself."""

    def __getattribute__(self, name):
        raise RuntimeError("no attributes here")

    def __repr__(self):
        raise RuntimeError("no text here")


def misbehave(extra, place):
    """Do it, if it is to be done here; return what there is to return, ... for nothing."""
    part, _, how = str((extra.get("headers") or {}).get("trouble")).partition(":")
    if part != place:
        return ...
    match how:
        case "raise":
            raise ValueError("trouble")
        case "exit":
            raise SystemExit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "die":
            os._exit(3)
        case "hang":
            while not STAY.wait(0.002):  # an exception lands between two waits
                pass
    return {"none": None, "five": 5, "odd": Nameless(), "list": [Nameless()]}.get(how, ...)


class Codec(Listed):
    def envelope(self, body, headers):
        found = super().envelope(body, headers)
        made = misbehave(found[0], "envelope") if found else ...
        return found if made is ... else made

    def arguments(self, job):
        made = misbehave(job.extra, "arguments")
        return job.kept if made is ... else made

    def again(self, job, changes):
        made = misbehave(job.extra, "again")
        return super().again(job, changes) if made is ... else made


def trace(job, fn):
    made = misbehave(job.extra, "runner")
    return toy.trace(job, fn) if made is ... else made


async def atrace(job, fn):
    made = misbehave(job.extra, "runner")
    return await toy.atrace(job, fn) if made is ... else made


def sink(job, outcome):
    """Be in trouble over the success only: of how it ends then, something can be told."""
    made = misbehave(job.extra, "sink") if type(outcome) is outcomes.Succeeded else ...
    return () if made is ... else made


def member(job, outcome):
    """Tell a group that is there of a member that cannot be."""
    bad = (job.extra.get("headers") or {}).get("trouble") == "member:body"
    return [Member("g:t", "0", "no bytes")] if bad else ()  # type: ignore[arg-type]


def work(n):
    if n == "again":
        from fsdf_engine import Retry, current

        if not current.attempt:
            raise Retry(changes={"kwargs": {"n": 1}})
    return n


def app(mode):
    """Return the app, whose only queue is in memory."""
    made = toy.Toy(mode, Codec(), atrace if mode == "asyncio" else trace,
                   lease=30.0, max_retry_times=1)  # fmt: skip
    made.sinks = (toy.record, toy.member, sink, member)
    for ack in ("late", "early"):
        made.declare(work, "memory", ack)
    return made


if MODE == "processes":
    resolve = app(MODE).plan
