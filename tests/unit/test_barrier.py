"""Groups of tasks: what members tell, what `then` and `on_failure` get, and what is refused."""

from __future__ import annotations

import datetime
import json
import logging

import pytest
from helpers import BOUND, until

from fsdf_engine import (
    ArgumentError,
    ConfigurationError,
    Engine,
    Reject,
    Requeue,
    Retry,
    TaskFailed,
    current,
    default_engine,
    task_deco,
)
from fsdf_engine.contracts import Completed, Group, Letter, Member, Outgoing, Record

DAY = datetime.date(2026, 2, 3)


def declare(fn, queue="members", **options):
    options = {"broker_kind": "memory", "max_retry_times": 0, **options}
    return task_deco(queue, **options)(fn)


def member(fn, **options):
    return declare(fn, **{"joins_groups": True, **options})


def body(fn, **options):
    return declare(fn, "bodies", is_using_rpc_mode=True, **options)


def run(*tasks):
    for task in tasks:
        task.consume()


@pytest.fixture
def seen():
    return []


@pytest.fixture
def collect(seen):
    """A task to be called when all have ended; it returns what it got."""

    def collect(values):
        seen.append((current.task_id, values))
        return values

    return body(collect)


def test_then_gets_what_the_members_returned_in_order(collect, seen):
    def work(n, m=1):
        return n * m

    task = member(work)
    result = task.push_group([(3,), {"n": 4, "m": 5}, [6, 7]], collect)
    assert result.status == "pending"
    run(task, collect)
    assert result.get(BOUND) == [3, 20, 42]
    assert seen == [(result.task_id, [3, 20, 42])]
    assert task.join(BOUND)
    assert sum(task.size()) == sum(collect.size()) == 0


def test_values_of_every_kind_arrive_as_they_were(collect):
    values = [None, True, 1.5, -(1 << 63), (1 << 64) - 1, 'ж"\\\n', [DAY, {"a": b"\x00"}], {1, 2}]

    def work(n):
        return values[n]

    task = member(work)
    result = task.push_group([(n,) for n in range(len(values))], collect)
    run(task, collect)
    assert result.get(BOUND) == values


def positional_only(values, /):
    return values


def by_name(*, key="k", **rest):
    return [key, rest]


def variadic(*values):
    return values[0]


def converted(values: list[datetime.date], other: str = "o"):
    return [repr(values), other]


@pytest.mark.parametrize(
    ("then", "told"),
    [
        (positional_only, ["2026-02-03"]),
        (variadic, ["2026-02-03"]),
        (converted, ["[datetime.date(2026, 2, 3)]", "o"]),
    ],
)
def test_then_may_take_its_first_argument_in_any_form(then, told):
    task, then = member(lambda n: "2026-02-03"), body(then)
    result = task.push_group([(1,)], then)
    run(task, then)
    assert result.get(BOUND) == told


def test_then_must_take_an_argument_by_position():
    with pytest.raises(ArgumentError, match="by_name"):
        member(lambda n: n).push_group([(1,)], body(by_name))


def test_an_empty_group_is_over_at_once(collect, seen):
    result = member(lambda n: n).push_group(iter(()), collect)
    run(collect)
    assert result.get(BOUND) == []


def test_a_failed_member_keeps_then_from_running(collect, seen, caplog):
    def work(n):
        if n:
            raise ValueError("no")
        return "fine"

    task = member(work)
    result = task.push_group([(0,), (1,)], collect)
    run(task, collect)
    with pytest.raises(
        TaskFailed, match=r"member 1 of group \w{32} failed: ValueError: no"
    ) as told:
        result.get(BOUND)
    assert told.value.status == "failed"
    until(lambda: collect.size().dead == 1)
    [letter] = collect.dead_letters()
    assert letter.id == result.task_id
    assert letter.reason.endswith("ValueError: no")
    until(lambda: "is a dead letter: member 1 of group" in caplog.text)
    collect.replay()  # for a person to decide: null stands where a member failed
    until(lambda: seen == [(result.task_id, ["fine", None])])


def test_on_failure_gets_what_became_of_the_failed(collect, seen):
    def work(n):
        if n == 1:
            raise ValueError("no")
        if n == 2:
            raise Reject("never")

    def oops(failed):
        seen.append(failed)

    task, oops = member(work), declare(oops, "oops")
    result = task.push_group([(n,) for n in range(3)], collect, on_failure=oops)
    run(task, collect, oops)
    with pytest.raises(TaskFailed, match="ValueError: no"):
        result.get(BOUND)
    until(lambda: seen)
    [told] = seen
    assert [(each["member"], each["status"], each["reason"]) for each in told] == [
        (1, "failed", "ValueError: no"), (2, "rejected", "never"),
    ]  # fmt: skip
    assert sum(collect.size()) == 0


@pytest.mark.parametrize("ack", ["late", "early"])
@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_a_member_that_is_retried_counts_once_when_it_ends(collect, seen, ack, delay):
    tries = []

    def work(n):
        tries.append(n)
        if tries.count(n) < 3:
            raise Retry(delay=delay)
        return n

    task = member(work, max_retry_times=5, ack=ack)
    result = task.push_group([(1,), (2,)], collect)
    run(task, collect)
    assert result.get(BOUND) == [1, 2]
    assert (len(tries), len(seen)) == (6, 1)


@pytest.mark.parametrize("ack", ["late", "early"])
def test_members_end_in_every_way(collect, ack):
    def work(n, text: int = 0):
        if n == 1:
            raise SystemExit
        return object() if n == 2 else None

    async def forever(n):
        import asyncio

        await asyncio.Event().wait()

    task = member(work, ack=ack)
    slow = member(forever, queue="slow", function_timeout=0.05, ack=ack)
    group = [(0,), (1,), (2,), {"n": 3, "text": "no number"}]
    first, second = task.push_group(group, collect), slow.push_group([(1,)], collect)
    run(task, slow, collect)
    for result, reason in ((first, "member 1"), (second, "the run passed its limit")):
        with pytest.raises(TaskFailed, match=reason):
            result.get(BOUND)


def test_an_expired_member_has_failed(collect):
    task = member(lambda n: n, msg_expire_seconds=0.001)
    result = task.push_group([(0,)], collect)
    until(lambda: task.size().waiting)
    import time

    until(lambda t=time.time() + 0.01: time.time() > t)
    run(task, collect)
    with pytest.raises(TaskFailed, match="expired"):
        result.get(BOUND)


def test_a_run_that_is_repeated_pushes_the_same_group(collect, seen):
    ran = []

    def push():
        result = task.push_group([(1,), (2,)], collect)
        ran.append(result.task_id)
        if len(ran) < 3:
            raise Requeue(delay=0)

    task, pushing = member(lambda n: n), declare(push, "pushing")
    pushing.push()
    run(pushing)
    until(lambda: len(ran) == 3)
    until(lambda: task.size().waiting == 6)
    run(task, collect)
    assert task.join(BOUND)
    assert collect.join(BOUND)
    assert seen == [(ran[0], [1, 2])]
    assert len(set(ran)) == 1


@pytest.mark.parametrize("group", ["x", ["x"], ["x", "1"], [1, 1], ["x", True], ["x", 1 << 40], {}])
def test_a_message_that_names_no_group_is_a_dead_letter(group):
    task = member(lambda n: n)
    outgoing = json.dumps({"n": 1, "extra": {"task_id": "t", "group": group}}).encode()
    default_engine().broker("memory").publish([Outgoing("members", "t", outgoing)])
    run(task)
    until(lambda: task.size().dead == 1)
    assert "give the group's id and a place" in task.dead_letters()[0].reason


def test_what_runs_last_has_to_be_a_task():
    task = member(lambda n: n)
    with pytest.raises(ConfigurationError, match="is no task; declare it with `task_deco`"):
        task.push_group([(1,)], then=len)


def test_a_member_of_a_group_that_is_gone_is_told_in_the_log(caplog):
    task = member(lambda n: n)
    outgoing = json.dumps({"n": 1, "extra": {"task_id": "t", "group": ["gone", 0]}}).encode()
    default_engine().broker("memory").publish([Outgoing("members", "t", outgoing)])
    with caplog.at_level(logging.WARNING):
        run(task)
        assert task.join(BOUND)
    assert "no group has this id" in caplog.text
    assert sum(task.size()) == 0


def test_a_task_that_joins_no_groups_is_no_member(collect):
    task = declare(lambda n: n)
    with pytest.raises(ConfigurationError, match="declare it with joins_groups=True"):
        task.push_group([(1,)], collect)


def test_then_must_be_of_the_same_broker():
    other = declare(lambda values: None, "other", broker_kind="sqlite")
    with pytest.raises(ConfigurationError, match="give all the same broker"):
        member(lambda n: n).push_group([(1,)], other)


def test_a_store_that_other_processes_do_not_see_is_refused():
    task = member(lambda n: n, broker_kind="sqlite", result_store="memory")
    then = declare(lambda values: None, "then", broker_kind="sqlite")
    for call in (task.consume, lambda: task.push_group([(1,)], then)):
        with pytest.raises(ConfigurationError, match="are in the memory of this process"):
            call()


def test_tasks_of_one_queue_keep_groups_in_one_store(tmp_path):
    options = {"broker_kind": "sqlite", "joins_groups": True}
    declare(lambda n: n, name="a", **options)
    other = {"result_store": "sqlite", "result_url": str(tmp_path / "other")}
    task = declare(lambda n: n, name="b", **options, **other)
    with pytest.raises(ConfigurationError, match="differ in their result store"):
        task.consume()


# ------------------------------------------------------------------ compose


def completed(body, members=(), at=50.0, on_failure=None):
    return Completed("G", at, 1, 60.0, Outgoing("q", "b", body), on_failure, members)


def test_the_message_keeps_all_but_its_values_and_its_time():
    body = b'{"a":"G","b":[1.5,"x"],"extra":{"task_id":"b","publish_time":100.0,"headers":{"k":1}}}'
    members = [Member("G", "0", b'"v"'), Member("G", "1", b'{"k":[1]}', place=1)]
    for at, told in ((50.0, 100.0), (150.123456, 150.1235)):
        [sent] = default_engine().compose(completed(body, members, at))
        assert json.loads(sent.body) == {
            "a": ["v", {"k": [1]}],
            "b": [1.5, "x"],
            "extra": {"task_id": "b", "publish_time": told, "headers": {"k": 1}},
        }


def test_a_refusal_is_told_to_whoever_waits():
    body = b'{"a":"G","extra":{"task_id":"b","publish_time":1.0,"reply":"inbox","task":"t"}}'
    record, letter = default_engine().compose(completed(body), "too large")
    assert (type(record), record.reply, record.final) == (Record, "inbox", True)
    assert json.loads(record.body)["reason"] == "too large"
    assert (type(letter), letter.reason, letter.id) == (Letter, "too large", "b")


# ------------------------------------------------------------------ a layer on top


def test_a_layer_opens_groups_of_its_own_form():
    """It tells of the size later, lets the group grow, and composes the message itself."""
    engine = Engine()

    def compose(done, refusal=""):
        values = b",".join(member.body for member in done.members)
        return [Outgoing("then", done.body.id, b'{"text":"%b"}' % values)]

    engine.compose = compose
    seen = []
    options = {"broker_kind": "memory"}
    task = engine.task(lambda n: n, "members", joins_groups=True, **options)
    then = engine.task(lambda text: seen.append(text), "then", **options)
    groups = task.grouping()
    groups.open([Group("g", Outgoing("then", "b", b"a form of its own"))])
    for n in range(3):
        outgoing = json.dumps({"n": n, "extra": {"task_id": str(n), "group": ["g", n]}}).encode()
        engine.broker("memory").publish([Outgoing("members", str(n), outgoing)])
    assert groups.grow("g", 1, "key") is True
    for each in (task, then):
        each.consume()
    assert task.join(BOUND)
    groups.set_size("g", 2)
    until(lambda: seen == ["0,1,2"])
    engine.close()
