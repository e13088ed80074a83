"""Tasks of the PROCESSES column of the matrix: child processes import this module."""

from __future__ import annotations

import os
import signal
import threading

from fsdf_engine import (
    ConcurrentModeEnum,
    Reject,
    Requeue,
    Retry,
    SoftTimeLimit,
    current,
    default_engine,
    task_deco,
)

BROKER = os.environ.get("E2E_BROKER", "memory")
LEDGER = os.environ.get("E2E_LEDGER", os.devnull)
OPTIONS = {
    "broker_kind": BROKER,
    "concurrent_mode": ConcurrentModeEnum.PROCESSES,
    "concurrent_num": 2,
}


def note(*facts):
    """Append one line, atomically."""
    with open(LEDGER, "ab", buffering=0) as ledger:
        ledger.write((" ".join(map(str, facts)) + "\n").encode())


@task_deco("e2e_run", **OPTIONS)
def run(n):
    note("run", n)


@task_deco("e2e_fresh", max_tasks_per_child=1, **OPTIONS)
def fresh(n):
    note("fresh", n)


@task_deco("e2e_rpc", is_using_rpc_mode=True, max_retry_times=0, **OPTIONS)
def rpc(n):
    if n == 13:
        raise ValueError("thirteen")
    if n == 14:
        raise Reject("not me")
    return {"n": n, "text": "ж漢"}


@task_deco("e2e_member", joins_groups=True, max_retry_times=1, **OPTIONS)
def member(n):
    if n < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if n == 50 and not current.attempt:
        raise Retry
    return {"n": n}


@task_deco("e2e_then", is_using_rpc_mode=True, **OPTIONS)
def then(values):
    return values


@task_deco("e2e_grouped", is_using_rpc_mode=True, max_retry_times=0, **OPTIONS)
def grouped(n):
    """Push a group from a child; say what its result is called."""
    return member.push_group([(each,) for each in range(n)], then).task_id


def then_result(id):
    """Return the result of a group that a child has pushed."""
    return default_engine().result(id, then.options)


@task_deco("e2e_retry", max_retry_times=2, **OPTIONS)
def retry(n):
    note("retry", n, current.attempt)
    if current.attempt < n:
        raise Retry(delay=1.01 if n == 1 else 0.0)


@task_deco("e2e_change", max_retry_times=2, **OPTIONS)
def change(items, options):
    note("change", len(items), len(options))
    items.append("sent")
    options.pop("token")
    raise Retry(delay=1.01 if current.attempt == 1 else 0.0)


@task_deco("e2e_requeue", **OPTIONS)
def requeue(n, seen):
    note("requeue", n, current.attempt)
    if not os.path.exists(seen):
        open(seen, "w").close()
        raise Requeue(delay=0.05)


@task_deco("e2e_first", **OPTIONS)
def first(n):
    second.push(n * 2)


@task_deco("e2e_second", **OPTIONS)
def second(n):
    note("second", n)


@task_deco("e2e_loop", is_using_rpc_mode=True, function_timeout=0.5, **OPTIONS)
def loop(n):
    return sum(range(10**12)) if n == 0 else n


@task_deco("e2e_patient", is_using_rpc_mode=True, **OPTIONS)
def patient(n):
    try:
        threading.Event().wait(60 * (1 - n))
    except SoftTimeLimit:
        return ["tidied", *current.limits]
    return n


@task_deco("e2e_die", is_using_rpc_mode=True, **OPTIONS)
def die(marker):
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), 9)
    return "survived"


@task_deco("e2e_early", ack="early", is_using_rpc_mode=True, **OPTIONS)
def early(marker):
    note("early")
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), 9)


@task_deco("e2e_early_long", ack="early", **OPTIONS)
def early_long(n):
    note("early_long", n)
    if n > 50:
        threading.Event().wait(60.0)


@task_deco("e2e_async", is_using_rpc_mode=True, **OPTIONS)
async def coroutine(n):
    return n + 1
