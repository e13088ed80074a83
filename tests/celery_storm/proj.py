"""The project: it says `import celery`, as its users do, and logs each start and end of a run.

A line of the log is `what task id retries redelivered`; what is below one page is written whole.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading

from celery import Celery, chord, current_task

URL, LEDGER = os.environ["STORM_URL"], os.environ.get("STORM_LEDGER", os.devnull)
AWAITS = os.environ.get("STORM_POOL") == "asyncio"
NAP = 0.03  # seconds that a run takes at most
app = Celery("proj", broker=URL, backend=URL)
app.conf.task_acks_late = os.environ.get("STORM_ACK", "late") == "late"
app.conf.worker_hijack_root_logger = False
fd = os.open(LEDGER, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
pause = threading.Event()


def note(what: str) -> None:
    request = current_task.request
    name, again = current_task.name.partition(".")[2], request.delivery_info["redelivered"]
    line = f"{what} {name} {request.id} {request.retries or 0} {again:d}\n"
    os.write(fd, line.encode())


def task(fn=None, **options):
    """Declare a task that notes its start, rests, does its work and notes its end."""
    if fn is None:
        return lambda fn: task(fn, **options)

    def run(*args):
        note("start")
        pause.wait(random.uniform(0, NAP))
        value = fn(*args)
        note("end")
        return value

    async def arun(*args):
        note("start")
        await asyncio.sleep(random.uniform(0, NAP))
        value = fn(*args)
        note("end")
        return value

    return app.task(arun if AWAITS else run, name=f"proj.{fn.__name__}", **options)


def flat(values):
    return sum(map(flat, values)) if isinstance(values, list) else values


@task
def add(x, y):
    return x + y


@task
def total(values):
    """End a chord: the sum of whatever is in it."""
    return flat(values)


@task
def fail(x):
    raise ValueError(x)


@task(bind=True, max_retries=5)
def flaky(self, x, fails, countdown):
    """Fail so many times, then return x."""
    if self.request.retries < fails:
        raise self.retry(exc=ValueError(x), countdown=countdown)
    return x


@task(bind=True)
def swap(self, *values):
    """Go on as a chord."""
    header = [add.s(n, 1).set(task_id=f"{self.request.id}.{n}") for n in values]
    raise self.replace(chord(header, total.s()))
