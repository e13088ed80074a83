"""A worker of groups that kills itself: group_worker.py BROKER LEDGER LEASE ACK [PLACE].

PLACE is a method and a side of it, as in `before:publish`, or `run`. What the messages of groups
ran with is in the ledger.
"""

from __future__ import annotations

import os
import signal
import sys

from fsdf_engine import current, default_engine, task_deco

broker, ledger, lease, ack, *place = sys.argv[1:]
fd = os.open(ledger, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
options = {"broker_kind": broker, "lease": float(lease), "max_retry_times": 0}


@task_deco("members", joins_groups=True, concurrent_num=2, prefetch=2, ack=ack, **options)
def member(n: int) -> int:
    if n == 1 and place == ["run"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return n * n


@task_deco("then", concurrent_num=1, **options)
def then(values: list) -> None:
    os.write(fd, f"{current.task_id} {values}\n".encode())


def deadly(thing, name, matters):
    """Let a method kill this process, before or after the call that matters."""
    call = getattr(thing, name)

    def die(*arguments):
        side = place[0].partition(":")[0]
        if side == "before" and matters(arguments, None):
            os.kill(os.getpid(), signal.SIGKILL)
        answer = call(*arguments)
        if side == "after" and matters(arguments, answer):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(thing, name, die)


def arm(name):
    """Choose the call at which to die."""
    engine = default_engine()
    groups, store = engine.replies(member.options).store.groups(), engine.broker(broker)
    if name == "add":  # the one that completes
        deadly(groups, "add", lambda given, done: done or any(m.id == "2" for m in given[0]))
    elif name == "publish":
        deadly(store, "publish", lambda given, _: any(m.queue == "then" for m in given[0]))
    elif name == "close":
        deadly(groups, "close", lambda given, _: True)
    else:
        closed = []
        close = groups.close
        groups.close = lambda *given: (close(*given), closed.append(1))
        subscribe = store.subscribe

        def subscribed(*given, **options):
            subscription = subscribe(*given, **options)
            deadly(subscription, "settle", lambda batch, _: closed)
            return subscription

        store.subscribe = subscribed


if __name__ == "__main__":
    if place and place != ["run"]:
        arm(place[0].partition(":")[2])
    member.consume()
    if not place:  # else the message's own run could be repeated, too
        then.consume()
