"""A run that lasts longer than the server lets anybody owe it an acknowledgement."""

from __future__ import annotations

import threading

import pika
import pytest
from helpers import until

from fsdf_engine import task_deco

LASTS = 180.0  # seconds; consumer_timeout is 60 s on the tests' server
BROKERS = ["rabbitmq_pika", "rabbitmq_amqpstorm"]


@pytest.mark.slow
def test_a_run_of_three_minutes_runs_once(rabbitmq_url, monkeypatch):
    """On a quorum queue of ours, on a classic one, and on one that another program has declared."""
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_url)) as other:
        other.channel().queue_declare("long.theirs", durable=True)
    started, ended, over = [], [], threading.Event()

    def work(name):
        started.append(name)
        over.wait(LASTS)
        ended.append(name)

    tasks = []
    for broker in BROKERS:
        for queue, kind in (("quorum", "quorum"), ("classic", "classic"), ("theirs", "quorum")):
            url = f"{rabbitmq_url}?queue_type={kind}"
            options = {"broker_kind": broker, "broker_url": url, "lease": 10.0}
            name = f"long.{queue}" if queue == "theirs" else f"long.{queue}.{broker}"
            tasks.append(task_deco(name, **options, concurrent_num=2)(work))
            tasks[-1].push(f"{name} by {broker}")
            tasks[-1].consume()
    until(lambda: len(started) == len(tasks))
    until(lambda: len(ended) == len(tasks), LASTS + 30.0)
    for task in tasks:
        assert task.join(20.0)
        assert task.size()[:2] == (0, 0)
    assert len(started) == len(set(started)) == len(tasks)
