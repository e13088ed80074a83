"""A worker that dies beside what it does at once: BROKER LEDGER LEASE ACK [SIDE TURN]."""

from __future__ import annotations

import os
import signal
import sys

from fsdf_engine import default_engine, task_deco
from fsdf_engine.contracts import Outgoing, outcomes

broker, ledger, lease, ack, *place = sys.argv[1:]
fd = os.open(ledger, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
options = {"broker_kind": broker, "lease": float(lease), "is_using_rpc_mode": True}


def follow(job, outcome):
    """Send what follows with the end of a run that has succeeded."""
    if type(outcome) is not outcomes.Succeeded:
        return []
    return [Outgoing("then", f"{job.id}-then", b'{"n":1}')]


default_engine().amend = lambda plan: (
    plan._replace(sinks=(*plan.sinks, follow)) if plan.queue == "first" else plan
)


@task_deco("first", ack=ack, **options)
def first(n: int) -> int:
    os.write(fd, b"first\n")
    return n + 1


@task_deco("then", **options)
def then(n: int) -> None:
    os.write(fd, b"then\n")


def deadly(together):
    """Let one call, in its turn, kill this process, before it or after it."""
    (side, turn), calls = place, []

    def die(*given, **more):
        calls.append(given)
        now = len(calls) == int(turn) + 1
        if now and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done, lost = together(*given, **more)
        assert done == 3
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return done, lost

    return die


if __name__ == "__main__":
    if place:
        store = default_engine().replies(first.options).store
        found = store.together
        both = []  # who acknowledges and the outbox take it in turns
        store.together = lambda given: (both or both.append(deadly(found(given))) or both)[0]
    first.consume()
    if not place:  # else it could be begun by who dies
        then.consume()
