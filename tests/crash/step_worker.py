"""A worker that dies at a step: step_worker.py BROKER LEDGER LEASE ACK [PLACE].

PLACE is a step, a side of it, and at which call, as in `write:after:0`. What has started is in the
ledger. Steps are `put` (the mark), `settle`, `publish`, `write` (results), `add` (members of
groups), `close` (of groups), `anew` (that messages were sent anew), `bury` and `delete` (the mark).
"""

from __future__ import annotations

import os
import signal
import sys

from fsdf_engine import Retry, current, default_engine, task_deco

broker, ledger, lease, ack, *place = sys.argv[1:]
fd = os.open(ledger, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
options = {
    "broker_kind": broker, "lease": float(lease), "ack": ack, "is_using_rpc_mode": True,
    "joins_groups": True, "concurrent_num": 3,
}  # fmt: skip


def note() -> None:
    os.write(fd, f"{current.task_id} {current.attempt}\n".encode())


@task_deco("steps", name="member", **options)
def member(n: int) -> int:
    note()
    return n * n


@task_deco("steps", name="flaky", max_retry_times=1, **options)
def flaky(n: int) -> int:
    """Go on as another message."""
    note()
    if current.attempt == 0:
        raise Retry(changes={"kwargs": {"n": n + 1}})
    return n


@task_deco("steps", name="failing", max_retry_times=0, **options)
def failing(n: int) -> None:
    note()
    raise ValueError(n)


@task_deco("then", broker_kind=broker, lease=float(lease), is_using_rpc_mode=True)
def then(values: list) -> list:
    note()
    return values


def deadly(thing, name, matters=lambda given: True):
    """Let the call of a method that matters, the one at its turn, kill this process."""
    call, (_, side, turn), left = getattr(thing, name), place[0].split(":"), []

    def die(*given):
        if matters(given):
            left.append(given)
        now = matters(given) and len(left) == int(turn) + 1
        if now and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = call(*given)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(thing, name, die)


def arm(step):
    """Choose the call at which to die."""
    engine = default_engine()
    store, where = engine.replies(member.options).store, engine.broker(broker)
    store.together = lambda subscription: None  # each step by itself
    if step == "settle":
        subscribe = where.subscribe

        def subscribed(*given, **options):
            subscription = subscribe(*given, **options)
            deadly(subscription, "settle")
            return subscription

        where.subscribe = subscribed
    elif step == "put":
        deadly(store.marks(), "put", lambda given: any(mark.watched for mark in given[0]))
    elif step == "anew":
        deadly(store.marks(), "put", lambda given: not any(mark.watched for mark in given[0]))
    elif step in ("add", "close"):
        deadly(store.groups(), step, lambda given: bool(given[0]))
    else:
        names = {"write": (store, "write"), "delete": (store.marks(), "delete")}
        deadly(*names.get(step, (where, step)))


if __name__ == "__main__":
    if place:
        arm(place[0].partition(":")[0])
    member.consume()
    if not place:  # else the run of a group's message could be repeated
        then.consume()
