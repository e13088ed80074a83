"""Cancelling messages that have not started, over every store and most brokers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis as client
from helpers import BOUND, until

from fsdf_engine import default_engine, task_deco
from fsdf_engine.brokers.redis_ack import RedisAckBroker
from fsdf_engine.brokers.redis_list import RedisBroker
from fsdf_engine.cli import main
from fsdf_engine.contracts import SIGNS, Job, Mark, Outgoing
from fsdf_engine.controls.cancelled import Cancelled, cancel
from fsdf_engine.core import gates as gates_module
from fsdf_engine.core.gates import Gates
from fsdf_engine.errors import ConfigurationError, TaskFailed
from fsdf_engine.options import resolve_options
from fsdf_engine.outcomes import Expired, Revoked
from fsdf_engine.stores.memory_marks import MemoryMarks
from fsdf_engine.stores.redis import RedisStore

KINDS = ["memory", "sqlite", "redis_ack", "redis_stream", "redis"]


@pytest.fixture(params=KINDS)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, object]]:
    kind = request.param
    if kind == "memory":
        yield {"broker_kind": kind}
    elif kind == "sqlite":
        yield {"broker_kind": kind, "broker_url": str(tmp_path / "q.sqlite")}
    else:
        yield {"broker_kind": kind, "broker_url": request.getfixturevalue("redis_url")}


def test_who_cancels_need_not_know_where_results_are_kept(tmp_path):
    """It is remembered beside the broker."""
    ran, where = [], {"broker_kind": "sqlite", "broker_url": str(tmp_path / "q.sqlite")}

    @task_deco(
        "elsewhere", result_store="memory", is_using_rpc_mode=True, cancellable=True, **where
    )
    def work(n):
        ran.append(n)

    results = work.push_many((n,) for n in range(2))
    default_engine().cancel(results[0].task_id, resolve_options(where))
    work.consume()
    assert results[1].get(BOUND) is None
    with pytest.raises(TaskFailed, match="revoked"):
        results[0].get(BOUND)
    assert ran == [1]


def test_cancelled_messages_do_not_run_and_end_as_revoked(where):
    ran = []

    @task_deco("cancelled", is_using_rpc_mode=True, cancellable=True, **where)
    def work(n):
        ran.append(n)
        return n

    results = work.push_many((n,) for n in range(20))
    delayed = work.publish({"n": 99}, countdown=0.3)
    results[3].cancel()
    default_engine().cancel([results[n].task_id for n in (5, 7)], work.options)
    delayed.cancel()
    delayed.cancel()  # once more is no error
    work.consume()
    for revoked in (results[3], results[5], results[7], delayed):
        with pytest.raises(TaskFailed, match="revoked") as caught:
            revoked.get(BOUND)
        assert caught.value.status == "revoked"
        assert str(caught.value).endswith("revoked: it was cancelled before it started")
    assert [r.get(BOUND) for n, r in enumerate(results) if n not in (3, 5, 7)]
    assert sorted(ran) == [n for n in range(20) if n not in (3, 5, 7)]
    assert work.join(BOUND)
    assert work.size() == (0, 0, 0, 0)


@pytest.mark.parametrize("ack", ["late", "early"])
def test_what_waits_here_is_recalled(ack, monkeypatch, redis_url):
    """By fast runs the worker learns to hold many; then come some too short for a stall."""
    monkeypatch.setattr(gates_module, "LOOK", 0.05)
    ran, slow = [], threading.Event()
    step = threading.Event()

    @task_deco(
        "recalled", broker_kind="redis_ack", broker_url=redis_url, concurrent_num=1,
        cancellable=True, ack=ack,
    )  # fmt: skip
    def work(n):
        ran.append(n)
        if n >= 3000:
            slow.set()
            step.wait(0.05)

    work.push_many((n,) for n in range(3000))
    results = work.push_many((n,) for n in range(3000, 3300))
    work.consume()
    assert slow.wait(BOUND)
    default_engine().cancel([r.task_id for r in results], work.options)
    assert work.join(BOUND)
    assert len(ran) < 3100


def test_what_cannot_be_cancelled_says_so():
    task = task_deco("certain", broker_kind="memory")(lambda: None)
    with pytest.raises(ConfigurationError, match="declare its task with cancellable=True"):
        task.push().cancel()


def test_other_tasks_of_the_queue_are_not_asked_about():
    ran = []
    options = {"broker_kind": "memory", "is_using_rpc_mode": True}
    sure = task_deco("mixed", name="sure", **options)(lambda: ran.append("sure"))
    maybe = task_deco("mixed", name="maybe", cancellable=True, **options)(lambda: ran.append("m"))
    ids = [sure.push(), maybe.push()]
    default_engine().cancel([r.task_id for r in ids], maybe.options)
    sure.consume()
    assert ids[0].get(BOUND) is None
    with pytest.raises(TaskFailed, match="revoked"):
        ids[1].get(BOUND)
    assert ran == ["sure"]


def test_a_task_declared_later_is_cancellable_too():
    options = {"broker_kind": "memory", "is_using_rpc_mode": True}
    task_deco("later", name="first", **options)(lambda: None).consume()
    second = task_deco("later", name="second", cancellable=True, **options)(lambda: None)
    delayed = second.publish({}, countdown=0.2)
    delayed.cancel()
    with pytest.raises(TaskFailed, match="revoked"):
        delayed.get(BOUND)


@pytest.mark.parametrize("ack", ["late", "early"])
@pytest.mark.parametrize("life", [60.0, 7 * 86400.0])
def test_nobody_looks_for_what_is_cancelled_while_nothing_is(ack, life, redis_url):
    options = {"broker_kind": "redis_ack", "broker_url": redis_url, "is_using_rpc_mode": True}
    task = task_deco("unsigned", cancellable=True, ack=ack, **options)(lambda n: n)
    task.consume()
    assert task.push(0).get(BOUND) == 0
    with client.Redis.from_url(redis_url) as server:
        server.config_resetstat()
        assert [task.push(n).get(BOUND) for n in range(10)] == list(range(10))
        assert "cmdstat_mget" not in server.info("commandstats")
        default_engine().cancel(["one", "two"], task.options, life=life)
        for id in ("one", "two", "three"):
            task.publish({"n": 1}, task_id=id)
        assert default_engine().result("three", task.options).get(BOUND) == 1
        for id in ("one", "two"):
            with pytest.raises(TaskFailed, match="revoked"):
                default_engine().result(id, task.options).get(BOUND)
        calls = server.info("commandstats")["cmdstat_mget"]["calls"]
        assert task.push(1).get(BOUND) == 1
        assert server.info("commandstats")["cmdstat_mget"]["calls"] == calls + 1


@pytest.mark.parametrize("kind", [RedisAckBroker, RedisBroker])
def test_a_fetch_of_what_waits_says_that_nothing_is_cancelled(kind, redis_url):
    broker = kind(redis_url)
    subscription = broker.subscribe("signs", lease=15.0)
    broker.publish([Outgoing("signs", str(n), b"{}") for n in range(3)])
    assert len(subscription.fetch(2, 1 << 20)) == 2
    assert subscription.unsigned
    cancel(RedisStore(redis_url).marks(), ["2"], 60.0)
    assert len(subscription.fetch(2, 1 << 20)) == 1
    assert not subscription.unsigned
    RedisStore(redis_url).marks().delete(SIGNS)
    assert not subscription.fetch(2, 1 << 20)
    assert not subscription.unsigned  # it says nothing of messages that came before
    subscription.close()


def test_signs_of_what_is_cancelled_outlive_it():
    marks = MemoryMarks()
    cancel(marks, ["a"], 60.0)
    assert [sign for sign in SIGNS if marks.read([sign])] == [SIGNS[0]]
    cancel(marks, ["b"], 30 * 86400.0)
    cancel(marks, ["c"], 60.0)
    put = {}
    marks.put = lambda new: put.update({mark.name: mark.life for mark in new}) or ()
    marks.renew = lambda names, life: put.update(dict.fromkeys(names, life)) or names
    cancel(marks, ["a"], 60.0)
    cancel(marks, ["b"], 30 * 86400.0)
    assert put[SIGNS[0]] > 86400.0
    assert put[SIGNS[1]] > 365 * 86400.0


def test_cancelling_is_forgotten_after_its_life():
    ran = threading.Event()
    task = task_deco("short", broker_kind="memory", cancellable=True)(ran.set)
    result = task.push()
    default_engine().cancel(result.task_id, task.options, life=0.02)
    store = default_engine().replies(task.options).store
    until(lambda: not store.marks().read([f"cancel:{result.task_id}"]))
    task.consume()
    assert ran.wait(BOUND)


def test_cancelling_again_lengthens_its_life():
    marks = MemoryMarks()
    cancel(marks, ["a"], 0.02)
    cancel(marks, ["a", "b"], 60.0)
    marks.put([Mark("end", life=0.05)])
    until(lambda: not marks.read(["end"]))
    assert set(marks.read(["cancel:a", "cancel:b"])) == {"cancel:a", "cancel:b"}


def test_cancel_on_the_command_line(redis_url, capsys):
    options = {"broker_kind": "redis_ack", "broker_url": redis_url}
    task = task_deco("typed", is_using_rpc_mode=True, cancellable=True, **options)(lambda n: n)
    one, two = task.push(1), task.push(2)
    told = ["cancel", one.task_id, "absent", "--broker", "redis_ack", "--url", redis_url]
    assert main([*told, "--life", "60"]) == 0
    assert "marked 2 as cancelled" in capsys.readouterr().out
    task.consume()
    assert two.get(BOUND) == 2
    with pytest.raises(TaskFailed, match="revoked"):
        one.get(BOUND)


# ------------------------------------------------------------------ the gates themselves


class Looked(MemoryMarks):
    looks = 0

    def read(self, names):
        self.looks += 1
        return super().read(names)


def job(id, gate):
    made = Job()
    made.id, made.owner, made.plan = id, "outbox", SimpleNamespace(gate=gate)
    return made


def test_a_batch_is_one_look_and_none_where_nothing_can_be_cancelled():
    marks = Looked()
    gate = Cancelled(marks)
    cancel(marks, ["b", "é"], 60.0)
    batch = [job(id, gate) for id in ("a", "b", "\udcff", "é")] + [job("b", None)]
    assert gate.judge(batch, 0.0) == [None, Revoked(), None, Revoked(), None]
    assert marks.looks == 1
    assert gate.judge([job("b", None)], 0.0) == [None]
    assert gate.judge([job("b", Cancelled(MemoryMarks()))], 0.0) == [None]
    assert marks.looks == 1


def test_what_passes_is_told_from_what_does_not():
    class Every:
        def judge(self, batch, now):
            return [Expired(1.0) if job.id == "x" else None for job in batch]

    marks = MemoryMarks()
    cancel(marks, ["b"], 60.0)
    gate = Cancelled(marks)
    jobs, answers = [job(id, gate) for id in "abx"], []
    made = Gates([Every()], None, None)
    made.add(gate)
    made.judge(jobs, answers)
    assert [job.id for job in jobs] == ["a"]
    assert [(job.id, outcome) for job, outcome in answers] == [
        ("x", Expired(1.0)), ("b", Revoked())
    ]  # fmt: skip


class Waiting:
    """A pool that starts nothing."""

    def __init__(self, jobs, running):
        self.jobs, self._running, self.withdrawn = list(jobs), running, 0

    def running(self):
        return self._running

    def withdraw(self, limit, owner):
        assert owner == "outbox"
        self.withdrawn += 1
        taken, self.jobs = self.jobs[::-1][:limit], self.jobs[:-limit]
        return taken

    def submit(self, jobs):
        self.jobs += jobs


def test_what_waits_is_looked_at_now_and_then_and_ended_where_it_is_found():
    marks = Looked()
    gate = Cancelled(marks)
    a, b, c, d, running, started, line = jobs = [job(id, gate) for id in "abcdrsl"]
    d.plan.gate = None
    keeper = SimpleNamespace(held={a, b, running, started, line}, acked={c, d})
    pool, own = Waiting([a, b, c, d], [running]), deque([line])
    made = Gates([], keeper, pool)
    assert not made.look_again(own, 5.0)
    assert marks.looks == 0  # no plan has a gate of its own
    made.add(gate)
    made.add(gate)
    assert not made.look_again(own, 10.0)
    cancel(marks, [each.id for each in jobs if each is not a], 60.0)
    assert not made.look_again(own, 11.0)
    assert (marks.looks, pool.withdrawn) == (1, 0)
    answers = dict(made.look_again(own, 12.5))
    assert (marks.looks, pool.withdrawn) == (2, 1)
    assert pool.jobs == [a, d]
    assert list(own) == []
    assert answers == {b: Revoked(), c: Revoked(), line: Revoked()}
    assert not made.look_again(own, 15.0)  # what has started meanwhile is not looked for again
    assert (marks.looks, pool.withdrawn) == (3, 1)
