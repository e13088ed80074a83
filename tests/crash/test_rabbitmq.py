"""Workers on RabbitMQ that are killed, and servers: no message is lost."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

import pytest
from helpers import until
from own_servers import is_kept

from fsdf_engine import PublishError, Unavailable, default_engine, task_deco

WORKER = Path(__file__).parent / "rabbitmq_worker.py"
BROKERS = ["rabbitmq_amqpstorm", "rabbitmq_pika"]
KINDS = ["quorum", "classic"]
FIRST = -1  # what makes the queue
LONG = 120.0  # seconds; a server takes a while to start on a busy machine


def runs(ledger):
    """Return what ran, in which process, and the most that it held."""
    text = ledger.read_text() if ledger.exists() else ""
    return [tuple(map(int, line.split())) for line in text.splitlines()]


def queue(broker):
    def work(n):
        raise AssertionError("runs in the worker only")

    return task_deco("crash", broker_kind=broker)(work)


def nothing_is_left(task):
    size = task.size()
    return (size.waiting, size.delayed, size.dead) == (0, 0, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("broker", BROKERS)
def test_kill_9_twenty_times_loses_nothing_and_repeats_only_what_was_held(
    broker, kind, rabbitmq_url, monkeypatch, spawn
):
    monkeypatch.setenv("FSDF_RABBITMQ_URL", f"{rabbitmq_url}?queue_type={kind}")
    total, chance = 5000, random.Random(7)
    task = queue(broker)
    task.push_many({"n": n} for n in range(total))
    for _ in range(20):
        worker = spawn(broker, 4.0)
        goal = len(runs(spawn.ledger)) + chance.randint(1, 150)
        until(lambda goal=goal: len(runs(spawn.ledger)) >= goal)
        worker.kill()
        worker.wait()
    spawn(broker, 4.0)
    until(lambda: len({n for n, *_ in runs(spawn.ledger)}) == total, LONG)
    until(lambda: nothing_is_left(task))
    found = runs(spawn.ledger)
    held = {pid: most for _, pid, most in found}  # by process, the last that it told
    assert len(held) == 21
    assert len(found) - total <= sum(held.values())


@pytest.mark.parametrize("broker", BROKERS)
def test_a_server_that_is_killed_under_load_loses_nothing(broker, own_server, monkeypatch, spawn):
    server = own_server("rabbitmq")
    monkeypatch.setenv("FSDF_RABBITMQ_URL", server.url)
    task, over = queue(broker), threading.Event()
    pushed, unknown = set[int](), Counter[str]()

    def push(first):
        n = first
        while not over.is_set():
            try:
                task.push(n)
            except PublishError as error:
                unknown["twice"] += len(error.unknown)
            except Unavailable:
                over.wait(0.05)
            else:
                pushed.add(n)
                n += 2

    task.push(FIRST)
    pushed.add(FIRST)
    until(lambda: is_kept(server.folder, "crash"), LONG)
    publishers = [threading.Thread(target=push, args=(first,), daemon=True) for first in (0, 1)]
    for thread in publishers:
        thread.start()
    for _ in range(2):
        spawn(broker, 4.0)
    for _ in range(2):
        goal = len(pushed) + 500
        until(lambda goal=goal: len(pushed) >= goal and len(runs(spawn.ledger)) >= goal / 2, LONG)
        server.kill()
        server.start()
    goal = len(pushed) + 500
    until(lambda: len(pushed) >= goal, LONG)
    over.set()
    for thread in publishers:
        thread.join()
    until(lambda: pushed <= {n for n, *_ in runs(spawn.ledger)}, LONG)
    until(lambda: nothing_is_left(task), LONG)
    assert default_engine().broker(broker).dead_letters("crash") == []
