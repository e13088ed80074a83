"""Steps that publish the next one into their own queue: BROKER LEDGER LEASE ACK [SIDE STEP].

It dies before or after the call that ends that step, publishes the next one and leases it.
"""

from __future__ import annotations

import os
import signal
import sys

from fsdf_engine import default_engine, task_deco
from fsdf_engine.contracts import Outgoing, outcomes

broker, ledger, lease, ack, *place = sys.argv[1:]
fd = os.open(ledger, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
STEPS = 6


def follow(job, outcome):
    """Send the next step with the end of a run that has succeeded."""
    if type(outcome) is not outcomes.Succeeded or outcome.value >= STEPS:
        return []
    id = f"step-{outcome.value}"
    return [
        Outgoing("steps", id, b'{"n":%d,"extra":{"task_id":"%b"}}' % (outcome.value, id.encode()))
    ]


default_engine().amend = lambda plan: plan._replace(sinks=(*plan.sinks, follow))


@task_deco("steps", broker_kind=broker, lease=float(lease), ack=ack, is_using_rpc_mode=True)
def step(n: int) -> int:
    os.write(fd, b"%d " % n)
    return n + 1


def deadly(together):
    """Let the call that ends a step kill this process, before it or after it."""
    side, turn = place

    def die(publishes, *given, **more):
        now = publishes and publishes[0].id == f"step-{int(turn) + 1}"
        if now and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = together(publishes, *given, **more)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return die


if __name__ == "__main__":
    if place:
        store = default_engine().replies(step.options).store
        found = store.together
        store.together = lambda given: deadly(found(given))
    step.consume()
