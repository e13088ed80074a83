"""Tasks for process pools, made by hand; children import this module to find them."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
import time
from contextvars import ContextVar
from typing import Any

from fsdf_engine import codec
from fsdf_engine.contracts import Effect, Job, Outgoing, Plan, Record
from fsdf_engine.core.binding import Binding
from fsdf_engine.core.context import current, current_job
from fsdf_engine.core.pushes import answers, pushed_id
from fsdf_engine.core.retry import RetryPolicy
from fsdf_engine.core.run import compile_plan
from fsdf_engine.errors import PublishError, Retry
from fsdf_engine.outcomes import SUCCEEDED, Outcome, Succeeded

QUEUE = "processes"
kept: list[bytes] = []
leaked: ContextVar[str] = ContextVar("leaked", default="")


class Odd(Exception):
    """Its constructor wants what its arguments do not hold."""

    def __init__(self, code: int, *, text: str) -> None:
        super().__init__(f"{code}: {text}")


def noop() -> None:
    pass


def planned_slowly() -> int:
    return 1


def add(a: int, b: int) -> int:
    return a + b


def echo(value: Any) -> Any:
    return value


def pid() -> int:
    return os.getpid()


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def terminate() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)


def sleep(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def c_loop() -> int:
    return sum(range(10**12))


def append(path: str, text: str) -> None:
    """One atomic line per start, so that a test counts starts whatever happened to the run."""
    with open(path, "ab", buffering=0) as file:
        file.write(text.encode() + b"\n")


def log_start(path: str, number: int) -> int:
    append(path, f"{number}")
    spin(0.002)
    return number


def log_and_wait(path: str, number: int, gate: str) -> int:
    """Note the start with the process id; then wait until the file `gate` exists."""
    append(path, f"{number} {os.getpid()}")
    while not os.path.exists(gate):  # a file tells nobody that it is there
        time.sleep(0.005)
    return number


def fail(kind: str) -> None:
    raise {
        "value": ValueError("a wrong value", 7),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "cancelled": asyncio.CancelledError(),
        "odd": Odd(3, text="three"),
        "local": type("Hidden", (Exception,), {})("nobody can import me"),
        "stop": StopIteration(1),
        "surrogate": ValueError("\udc80"),
    }[kind]


def die(how: int) -> None:
    os.kill(os.getpid(), how)
    time.sleep(60)


def exit_now() -> None:
    os._exit(9)


def opaque() -> object:
    return object()


def push(number: int) -> str:
    job = current_job.get()
    job.owner.commit(job, [Outgoing("next", f"child-{number}", b"%d" % number)])
    return "stored"


def grow(size: int) -> int:
    kept.append(b"x" * size)
    return os.getpid()


def start_sleeper(path: str) -> None:
    """Start a process of its own, note its id, and hang."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    append(path, str(sleeper.pid))
    sleeper.wait()


def leak(text: str) -> str:
    before = leaked.get()
    leaked.set(text)
    return before


def outlive_sigint() -> int:
    """Return how a program ends that is started by one who outlives what ends it."""
    signal.raise_signal(signal.SIGINT)
    return subprocess.run(["sh", "-c", "kill -INT $$"], check=False).returncode


def context() -> list[Any]:
    job = current_job.get()
    return [
        current.task_id, current.queue, current.attempt, current.deliveries, current.publish_time,
        current.headers, job.delivery.state,
    ]  # fmt: skip


def push_caught(number: int) -> list[str]:
    try:
        push(number)
    except PublishError as error:
        return [outgoing.id for outgoing in error.rejected]
    return []


def push_and_retry() -> None:
    job = current_job.get()
    outgoing = Outgoing("next", pushed_id(job), b"{}")
    try:
        with answers(job, [outgoing]):
            job.owner.commit(job, [outgoing])
    except PublishError as error:
        raise Retry("later", delay=7.0) from error


def log_and_die_at_7(path: str, number: int) -> None:
    append(path, f"{number}")
    if number == 7:
        os._exit(9)


def retry() -> None:
    raise Retry("later", delay=7.0)


def retry_from_an_outage() -> None:
    raise Retry("later") from OSError("away")


async def a_add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


async def a_push(number: int) -> str:
    job = current_job.get()
    await job.owner.acommit(job, [Outgoing("next", f"child-{number}", b"%d" % number)])
    return "stored"


def flaky(path: str) -> int:
    """Fail at first, then hang: the second attempt has a whole timeout of its own."""
    append(path, repr(time.monotonic()))
    if current_job.get().attempt == 0:
        time.sleep(0.6)  # a part of the timeout, which the second attempt is to have whole
        raise ValueError("again")
    time.sleep(60)
    return 0


def value_sink(job: Job, outcome: Outcome) -> list[Effect]:
    """Keep what a run has returned: the value itself stays in the child."""
    if type(outcome) is not Succeeded:
        return []
    return [Record(job.id, codec.dumps(codec.plain(outcome.value)))]


def give_value(job: Job) -> None:
    """Give a job's outcome what its child has returned, from the record that was made there."""
    told = getattr(job, "told", None)
    if type(job.outcome) is Succeeded and told:
        value = codec.loads(told.effects[0].body)
        job.outcome = SUCCEEDED if value is None else Succeeded(value)


@functools.lru_cache
def resolve(queue: str, name: str, timeout: float = 0.0) -> Plan:
    """Return the plan of a function of this module; few have a second attempt."""
    if name == "missing":
        raise LookupError("no such task")
    if name == "planned_slowly":
        spin(0.8)
    fn = globals()[name]
    policy = RetryPolicy(max_retries={"flaky": 1, "retry": 1, "push_and_retry": 9}.get(name, 0))
    bind = Binding(fn).bind
    plan = Plan(name, queue, None, None, bind, (value_sink,), policy=policy, timeout=timeout)
    return compile_plan(plan, fn)
