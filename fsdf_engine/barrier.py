"""Groups of the engine's own messages: what members tell, and what is composed of it.

The message of a group holds, in place of its first argument, the group's id; when it leaves, the
list of values stands there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from . import codec, outcomes
from .call import calls_of
from .contracts import (
    Broker,
    Capability,
    Completed,
    Effect,
    Group,
    Job,
    Letter,
    Member,
    Outgoing,
    Record,
    ResultStore,
    Sink,
)
from .core.context import current_job
from .core.publisher import Publisher, place_of
from .core.writer import Writer, moment, next_id
from .errors import ConfigurationError
from .grouping import Grouping, Made
from .message import derived_id
from .outcomes import Outcome, Succeeded
from .registry import brokers
from .replies import Replies
from .result_sink import result_sink

if TYPE_CHECKING:
    from .core.outbox import Outbox
    from .engine import Engine
    from .options import TaskOptions

__all__ = [
    "compose", "grouping_of", "join_groups", "member_sink", "push_calls", "sinks_of", "store_of",
]  # fmt: skip

FLUSH = 500  # members that are published at a time
Services: TypeAlias = tuple[Publisher, Replies | None, Writer]  # of a task


def store_of(engine: Engine, options: TaskOptions) -> ResultStore:
    """Return the store of a task's results and groups.

    Raises:
        ConfigurationError: other processes have its messages, and would not find the groups.
    """
    broker, store = engine.broker_of(options), engine.replies(options).store
    if options.joins_groups and Capability.SHARED in broker.capabilities and not store.shared:
        raise ConfigurationError(
            f"groups in {type(store).__name__} are in the memory of this process, and messages in"
            f" {broker.address} are not; give the task result_store='redis' or 'sqlite'"
        )
    return store


def grouping_of(engine: Engine, options: TaskOptions) -> Grouping:
    """Return the groups that messages of such a task are members of. Opens nothing yet.

    Raises:
        ConfigurationError: as `store_of`.
    """
    import hashlib  # slow to import, and only groups need it

    broker, store = engine.broker_of(options), store_of(engine, options)
    kind = engine.config["BROKER_KIND"] if options.broker_kind is None else options.broker_kind
    # A sweep takes what it can compose: another layer's groups are not for us.
    form = [getattr(engine.compose, name, "") for name in ("__module__", "__qualname__")]
    place = f"{brokers.name(kind)} {broker.url} {form}"  # type: ignore[arg-type]
    if Capability.SHARED not in broker.capabilities:  # two that are alike are two places
        place = f"{place} {id(broker)}"
    name = hashlib.blake2b(place.encode(), digest_size=8).hexdigest()
    lease = options.lease or engine.config.number("LEASE")
    return Grouping(broker, store, name, lease, engine.compose)


def join_groups(engine: Engine, options: TaskOptions, outbox: Outbox) -> None:
    """Let an outbox take part in groups, if the task that it is to serve does."""
    if options.joins_groups:
        outbox.join_groups(grouping_of(engine, options))


def sinks_of(options: TaskOptions, expires: float) -> tuple[Sink, ...]:
    """Return what a task's options ask to be told of its ends."""
    results = (result_sink(expires),) if options.is_using_rpc_mode else ()
    return (*results, member_sink) if options.joins_groups else results


# ------------------------------------------------------------------ what is pushed


def services_of(task: Any) -> Services:
    """Return what publishes a task's messages.

    Raises:
        ConfigurationError: it is no task.
    """
    if (services := getattr(task, "_services", None)) is None:
        raise ConfigurationError(f"{task!r} is no task; declare it with `task_deco`")
    return services()  # type: ignore[no-any-return]


def push_calls(
    engine: Engine,
    options: TaskOptions,
    calls: Sequence[Any],
    members: Services,
    body: Services,
    on_failure: Services | None,
) -> tuple[str, Replies | None]:
    """Open a group and publish its members; return the id of its message, and where it is awaited.

    Blocks. Where the run that pushes is repeated it is the same group. `options` are the members'.

    Raises:
        ArgumentError: a call does not fit, or a message takes no argument by position.
        ConfigurationError: the members' task joins no groups, or a message is of another broker.
        PublishError, Unavailable: the group may be open, and never be complete.
    """
    _check_group(options, *[each[0].broker for each in (members, body, on_failure) if each])
    publisher, _, write = members
    _, replies, write_body = body
    id, now = next_id(), moment()
    first = write_body((id,), {}, now, id=derived_id(id, 0, 0))
    other = on_failure and on_failure[2]((id,), {}, now, id=derived_id(id, 0, 1))
    batch = [
        message
        for n, call in enumerate(calls)
        for message in calls_of(partial(write, extra={"group": [id, n]}), (call,), now, n)
    ]
    if replies:
        replies.expect((first.id,), now)
    if not calls:
        done = Completed(id, now, 1, 0.0, first, None, ())
        body[0].publish((_filled(done, first, []),))
        return first.id, replies
    expires = options.result_expires or engine.config.number("RESULT_EXPIRES")
    group = Group(id, first, len(batch), other, expires=expires)
    grouping_of(engine, options).open((group,))
    for start in range(0, len(batch), FLUSH):
        publisher.publish(batch[start : start + FLUSH])
    return first.id, replies


def _check_group(options: TaskOptions, broker: Broker, *others: Broker) -> None:
    if not options.joins_groups:
        raise ConfigurationError(
            "this task's messages are no members of groups, for its workers would not look for"
            " them; declare it with joins_groups=True"
        )
    job = current_job.get(None)
    if Capability.SHARED not in broker.capabilities and job and not hasattr(job.owner, "broker"):
        raise ConfigurationError(
            "this is a child process, and the messages are in the memory of its parent, where a"
            " group would have to be; push it there, or give the task a broker that is shared"
        )
    for other in others:
        if place_of(other) != place_of(broker):
            raise ConfigurationError(
                f"the messages of a group are in {other.address}, and its members' in"
                f" {broker.address}, whose workers publish them; give all the same broker"
            )


# ------------------------------------------------------------------ what has ended


def member_sink(job: Job, outcome: Outcome) -> Sequence[Effect]:
    """Tell the group that a message is a member of how it ended: by its value, or by why not.

    Raises:
        ValueError: `extra.group` names none.
    """
    if job.extra.get("group") is None or not outcomes.ended(outcome):
        return ()
    if type(outcome) is Succeeded:
        return _member(job, codec.dumps(codec.plain(outcome.value)))
    return _member(job, None, type(outcome).__name__.lower(), outcomes.describe(outcome))


def _of_end(job: Job, end: bytes) -> Sequence[Effect]:
    """Tell it by the result that is stored: who should have is gone."""
    if job.extra.get("group") is None:
        return ()
    told = orjson.loads(end)
    if told["status"] == "succeeded":
        return _member(job, orjson.dumps(told.get("result")))
    return _member(job, None, told["status"], told["reason"])


setattr(member_sink, "of_end", _of_end)  # noqa: B010  a function has no attributes for mypy


def _member(job: Job, value: bytes | None, status: str = "", reason: str = "") -> Sequence[Effect]:
    named = job.extra["group"]
    if not (type(named) is list and list(map(type, named)) == [str, int] and named[1] < 1 << 31):
        raise ValueError(f"extra.group is {named!r}: give the group's id and a place")
    id, place = named
    if value is not None:
        return [Member(id, str(place), value, False, place)]
    told = codec.dumps({"member": place, "task_id": job.id, "status": status, "reason": reason})
    return [Member(id, str(place), told, True, place)]


def compose(done: Completed, refusal: str = "") -> Sequence[Made]:
    """Return the message of a completed group with its values.

    If some have failed: `on_failure` with what they told; without it a dead letter that has null in
    their places. Whoever waits for the message's result is told in both cases, and of a refusal.
    """
    failed = [member for member in done.members if member.failed]
    if not failed and not refusal:
        return [_filled(done, done.body, [member.body for member in done.members])]
    reason = refusal or f"member {failed[0].id} of group {done.id} failed: {_why(failed[0])}"
    if failed and done.on_failure and not refusal:
        other = _filled(done, done.on_failure, [member.body for member in failed])
        return [*_record(done, reason), other]
    values = [b"null" if member.failed else member.body for member in done.members]
    body = _filled(done, done.body, values)
    letter = Letter(body.queue, body.id, body.body, reason, "", body.headers, body.priority)
    return [*_record(done, reason), letter]


def _filled(done: Completed, message: Outgoing, values: Sequence[bytes]) -> Outgoing:
    """Return a message with values in the place that it has for them, as published now."""
    data = orjson.loads(message.body)
    data["extra"]["publish_time"] = _published(done, data["extra"])
    holder, array = orjson.dumps(done.id), b"[" + b",".join(values) + b"]"
    return replace(message, body=orjson.dumps(data).replace(holder, array))


def _published(done: Completed, extra: dict[str, Any]) -> float:
    """Return the instant of completion, unless the publisher's clock was ahead of the store's."""
    return max(float(extra["publish_time"]), round(done.at, 4))


def _record(done: Completed, reason: str) -> list[Record]:
    """Return what the waiter for the message's result learns, if there may be one."""
    extra = orjson.loads(done.body.body)["extra"]
    if not (reply := extra.get("reply")):
        return []
    told = {
        "task_id": done.body.id,
        "publish_time": _published(done, extra),
        "status": "failed",
        "queue": done.body.queue,
        "task": extra.get("task", ""),
        "attempt": 0,
        "ended_at": round(done.at, 4),
        "reason": reason,
    }
    return [Record(done.body.id, codec.dumps(told), expires=done.expires, reply=reply)]


def _why(member: Member) -> str:
    try:
        return str(orjson.loads(member.body)["reason"])
    except Exception:  # not of this form: what it is, a person can see
        return outcomes.text_of(member.body, repr)
