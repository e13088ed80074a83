"""A worker on RabbitMQ that is frozen for longer than its lease, and goes on later."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from helpers import BOUND, until

from fsdf_engine import task_deco

WORKER = Path(__file__).parent / "crash_worker.py"


@pytest.mark.parametrize("kind", ["quorum", "classic"])
@pytest.mark.parametrize("broker", ["rabbitmq_pika", "rabbitmq_amqpstorm"])
def test_a_frozen_worker_is_taken_over_and_what_it_does_later_is_refused(
    broker, kind, rabbitmq_url, monkeypatch, spawn, tmp_path
):
    monkeypatch.setenv("FSDF_RABBITMQ_URL", f"{rabbitmq_url}?queue_type={kind}")
    go = tmp_path / "go"

    def lines():
        return spawn.ledger.read_text().splitlines() if spawn.ledger.exists() else []

    def declared(name, **options):
        def work(go="", pid=0):
            raise AssertionError("runs in the worker only")

        return task_deco(name, broker_kind=broker, **options)(work)

    task, follow = declared("stalled", is_using_rpc_mode=True), declared("follow")
    result = task.publish({"go": str(go)})
    first = spawn(broker, 2.0, "stalled")
    until(lambda: lines() == [f"start {first.pid}"])
    first.send_signal(signal.SIGSTOP)
    second = spawn(broker, 2.0, "stalled")
    until(lambda: lines()[1:] == [f"start {second.pid}"], 2 * BOUND)
    go.touch()
    assert result.get(BOUND) == second.pid
    first.send_signal(signal.SIGCONT)
    until(lambda: f"refused {first.pid}" in lines())
    assert f"pushed {second.pid}" in lines()
    until(lambda: task.size()[:2] == (0, 0))
    assert follow.size().waiting == 1
    first.terminate()
    assert first.wait(BOUND) == 0
    assert result.info["result"] == second.pid
    size = task.size()
    assert (size.waiting, size.delayed, size.dead) == (0, 0, 0)
