"""The layer itself: an app with tasks on many queues. It uses the public ports only."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any

import toy_wire

from fsdf_engine import Engine
from fsdf_engine.contracts import Group, Layout, Letter, Member, Outgoing, Record, outcomes

LAYOUT = Layout("toy", "toy:result:", lambda body: json.loads(body)["state"] != "again")
EXPIRES = 600.0


def result(id: str, state: str, value: Any) -> bytes:
    return json.dumps({"id": id, "state": state, "value": value}).encode()


def state_of(outcome: outcomes.Outcome) -> tuple[str, Any]:
    if type(outcome) is outcomes.Succeeded:
        return "done", outcome.value
    return type(outcome).__name__.lower(), outcomes.describe(outcome)


def record(job: Any, outcome: outcomes.Outcome) -> Sequence[Record]:
    """The sink of results: progress, too."""
    if not (final := outcomes.ended(outcome)) and type(outcome) is not outcomes.Retry:
        return ()
    state, value = state_of(outcome) if final else ("again", outcomes.describe(outcome))
    extra, body = job.extra, result(job.id, state, value)
    reply, sends = extra.get("reply") or "", extra.get("sends") or 0
    fence = (job.delivery.deliveries, final, EXPIRES, reply, sends, "", job.attempt)
    return [Record(job.id, body, *fence, layout=LAYOUT.name)]


def member(job: Any, outcome: outcomes.Outcome) -> Sequence[Member]:
    """The sink of groups, which are named in a header."""
    return member_of(job, *state_of(outcome)) if outcomes.ended(outcome) else ()


def member_of(job: Any, state: str, value: Any) -> Sequence[Member]:
    named = (job.extra.get("headers") or {}).get("group")
    if named is None:
        return ()
    group, place = named
    return [Member(group, str(place), json.dumps(value).encode(), state != "done", place)]


def of_end(job: Any, end: bytes) -> Sequence[Member]:
    told = json.loads(end)
    return member_of(job, told["state"], told["value"])


setattr(member, "of_end", of_end)  # noqa: B010  a function has no attributes for mypy


def compose(done: Any, refusal: str = "") -> Sequence[Outgoing | Record | Letter]:
    """Fill the values into the message; what failed is told to whoever waits for it."""
    mark, told, _, kwargs = json.loads(done.body.body)
    values = [json.loads(m.body) for m in done.members]
    failed = [m for m in done.members if m.failed]
    if failed or refusal:
        body = result(done.body.id, "failed", refusal or values)
        more = {"expires": EXPIRES, "reply": told.get("back", ""), "layout": LAYOUT.name}
        return [Record(done.body.id, body, **more)]
    body = json.dumps([mark, told, [values], kwargs]).encode()
    return [Outgoing(done.body.queue, done.body.id, body)]


def trace(job: Any, fn: Any) -> outcomes.Outcome:
    """The tracer: what is raised means what the task's policy says."""
    try:
        return outcomes.Succeeded(fn(*job.args, **job.kwargs))
    except Exception as error:
        return job.plan.policy.outcome(error, job.attempt, job.plan.timeout)


async def atrace(job: Any, fn: Any) -> outcomes.Outcome:
    try:
        return outcomes.Succeeded(await fn(*job.args, **job.kwargs))
    except Exception as error:
        return job.plan.policy.outcome(error, job.attempt, job.plan.timeout)


class Toy:
    """An app. Its tasks are declared with a broker's name and a way to acknowledge."""

    def __init__(self, mode: str, codec: Any = None, runner: Any = None, **options: Any) -> None:
        self.mode, self.options = mode, options
        self.engine = Engine()
        self.engine.codecs = (codec or toy_wire.Listed(), *self.engine.codecs)
        self.engine.compose = compose
        self.sinks: tuple[Any, ...] = (record, member)
        self.runner = runner or (atrace if mode == "asyncio" else trace)
        self.engine.amend = lambda plan: plan._replace(sinks=self.sinks, runner=self.runner)
        self.tasks: dict[str, Any] = {}

    def declare(self, fn: Any, broker: str, ack: str = "late", **options: Any) -> None:
        """Let a function be a task of the queue for this broker and way."""
        if self.mode == "asyncio" and not inspect.iscoroutinefunction(fn):
            plain = fn

            async def fn(*args: Any, **kwargs: Any) -> Any:
                return plain(*args, **kwargs)

            fn.__name__ = plain.__name__
        queue, name = f"toy.{broker}.{ack}", fn.__name__
        given = {"is_using_rpc_mode": True, "joins_groups": True, "cancellable": True, "ack": ack}
        options = {**given, **self.options, "broker_kind": broker, "name": name, **options}
        self.tasks[f"{queue}/{name}"] = self.engine.task(fn, queue, **options)

    def of(self, queue: str, name: str = "work") -> Any:
        return self.tasks[f"{queue}/{name}"]

    def replies(self, queue: str) -> Any:
        """Return what waits for results of a queue, in the layer's layout."""
        return self.engine.replies(self.of(queue).options, LAYOUT)

    def message(self, queue: str, id: str, name: str, args: Sequence[Any], **control: Any) -> Any:
        given = {"task_id": id, "task": name, "reply": self.replies(queue).address, **control}
        return toy_wire.message(args, {}, given, queue)

    def send(self, queue: str, *messages: Outgoing) -> None:
        self.replies(queue).expect([message.id for message in messages], 0.0)
        broker = self.engine.broker_of(self.of(queue).options)
        self.engine.publisher(broker).publish(messages)

    def chord(self, queue: str, id: str, calls: Sequence[Sequence[Any]], then: str) -> None:
        """Send calls of `work`, and one of `then` with the list of what they returned."""
        body = self.message(queue, id, then, ())
        self.replies(queue).expect([id], 0.0)
        self.of(queue).grouping().open([Group(f"g:{id}", body, len(calls), expires=EXPIRES)])
        headers = [{"group": [f"g:{id}", n]} for n in range(len(calls))]
        self.send(queue, *[
            self.message(queue, f"{id}.{n}", "work", call, headers=headers[n])
            for n, call in enumerate(calls)
        ])  # fmt: skip

    def get(self, queue: str, id: str, timeout: float) -> Any:
        """Wait for a result: (state, value)."""
        body = self.replies(queue).wait(id, timeout, queue)
        assert body, f"{id} has no result"
        told = json.loads(body)
        return told["state"], told["value"]

    def stored(self, queue: str, ids: Sequence[str]) -> dict[str, Any]:
        """Return the ends that are stored: state and value by id."""
        store = self.replies(queue).store
        found = store.read(ids, final=True, layout=LAYOUT.name)
        return {id: json.loads(body) for id, body in found.items()}

    def consume(self, size: int, *, resolve: str = "", preload: Sequence[str] = ()) -> Any:
        """Serve every queue on one pool."""
        more = {"resolve": resolve, "preload": preload} if self.mode == "processes" else {}
        pool = self.engine.new_pool(self.mode, size, **more)
        for task in {task.queue: task for task in self.tasks.values()}.values():
            self.replies(task.queue)  # its store learns of the layout
            self.engine.consume(task, pool=pool)
        return pool

    def plan(self, queue: str, name: str) -> Any:
        """Return a plan, for child processes."""
        return self.engine.find(queue, name).plan()
