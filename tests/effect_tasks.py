"""Tasks of child processes that die around their report, or whose sinks make what nobody takes.

Child processes import this module.
"""

from __future__ import annotations

import functools
import os
import signal

from process_tasks import append

from fsdf_engine import ConcurrentModeEnum, task_deco
from fsdf_engine import Retry as RetryTask
from fsdf_engine.contracts import Outgoing, Plan
from fsdf_engine.core.binding import Binding
from fsdf_engine.core.run import compile_plan
from fsdf_engine.outcomes import Retry, Succeeded
from fsdf_engine.pools.channel import Channel
from fsdf_engine.pools.ledger import Ledger
from fsdf_engine.result_sink import result_sink

OPTIONS = {
    "broker_kind": "memory",
    "is_using_rpc_mode": True,
    "max_retry_times": 0,
    "concurrent_mode": ConcurrentModeEnum.PROCESSES,
    "concurrent_num": 1,
}
LARGE = 10 << 20


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@task_deco("dies_in_its_report", **OPTIONS)
def dies_in_its_report(path, number):
    """The first run of 0 is killed when half of its large report has left."""
    append(path, f"{number}")
    if number == 0 and os.path.getsize(path) == 2:

        def send(channel, *parts):
            report = b"".join(parts)
            assert len(report) > LARGE
            channel._end.sendall(report[: len(report) // 2])
            die()

        Channel.send = send
    return f"{number}" * (LARGE if number == 0 else 1)


@task_deco("dies_after_its_report", **OPTIONS)
def dies_after_its_report(path, number):
    """The run of 7 is killed when its report is written, and nobody has been told of it."""
    append(path, f"{number}")
    if number == 7:
        write = Ledger.write

        def last(ledger, report):
            write(ledger, report)
            die()

        Ledger.write = last
    return number


WRONG = {
    "priority": {"priority": 10},
    "queue": {"queue": ""},
    "no queue of the broker's": {"queue": "a:dead"},
    "id": {"id": 7},
    "body": {"body": "text"},
    "headers": {"headers": {"a": 1}},
    "delay": {"delay": float("nan")},
    "ttl": {"ttl": -1.0},
}


def follow_up(job, outcome):
    """Publish a message after each run; what the run returned says what is wrong with it."""
    if type(outcome) not in (Succeeded, Retry):
        return []
    given = {"queue": "next", "id": f"{job.id}-next", "body": b'{"n": 1}'}
    kind = outcome.value if type(outcome) is Succeeded else str(outcome.error)
    if kind == "no effect":
        return ["text"]
    return [Outgoing(**{**given, **WRONG.get(kind, {})})]


def work(kind):
    """Return what is wrong with the follow-up, or raise it."""
    if kind.startswith("retry "):
        raise RetryTask(kind.removeprefix("retry "), delay=5.0)
    return kind


async def awork(kind):
    return work(kind)


SPEC = {"sinks": (follow_up, result_sink(60.0)), "keep_failed": False}


@functools.lru_cache
def resolve(queue, name):
    """Return the plan of `work` in a child."""
    return compile_plan(Plan(name, queue, None, None, Binding(work).bind, **SPEC), work)
