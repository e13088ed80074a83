"""Workers on SQL databases, and the servers themselves, that die at any moment: nothing is lost."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
from helpers import until

from fsdf_engine import PublishError, Unavailable, task_deco

WORKER = Path(__file__).parent / "crash_worker.py"
KILLS = 2  # of a server


def lines(ledger):
    return ledger.read_text().splitlines() if ledger.exists() else []


def queue():
    def work(n=0):
        raise AssertionError("runs in the worker only")

    return task_deco("crash", broker_kind="sqlalchemy")(work)


@pytest.fixture(params=["postgresql", "mysql"])
def database(request, monkeypatch):
    monkeypatch.setenv("FSDF_SQLALCHEMY_URL", request.getfixturevalue(f"{request.param}_url"))
    return request.param


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request, own_server, monkeypatch):
    """A server of the test's own, which it may kill."""
    own = own_server(request.param)
    monkeypatch.setenv("FSDF_SQLALCHEMY_URL", own.url)
    return own


def test_kill_9_twenty_times_loses_nothing_and_repeats_only_what_was_held(database, spawn):
    total, kills, chance = 5000, 20, random.Random(11)
    task = queue()
    task.push_many({"n": n} for n in range(total))
    held = 0
    for _ in range(kills):
        worker = spawn("sqlalchemy", 2.0)
        goal = len(lines(spawn.ledger)) + chance.randint(1, 150)
        until(lambda goal=goal: len(lines(spawn.ledger)) >= goal)
        worker.kill()
        worker.wait()
        held += task.size().leased
    assert held, "no kill met a lease: the test shows nothing"
    spawn("sqlalchemy", 2.0)
    until(lambda: task.size() == (0, 0, 0, 0), 90.0)
    runs = [int(line.split()[0]) for line in lines(spawn.ledger)]
    assert len(set(runs)) == total
    assert len(runs) - total <= held


def test_a_server_that_is_killed_under_load_loses_nothing(server, spawn):
    """Live publishers and consumers go on; what a push did not confirm may be there."""
    task, sure, perhaps = queue(), set(), set()
    task.push(-1)
    over, lock, numbers = threading.Event(), threading.Lock(), iter(range(1_000_000))

    def publish():
        while not over.is_set():
            with lock:
                some = [next(numbers) for _ in range(20)]
            try:
                task.push_many({"n": n} for n in some)
                told = sure
            except (PublishError, Unavailable):
                told = perhaps
                over.wait(0.05)
            with lock:
                told.update(some)

    threads = [threading.Thread(target=publish) for _ in range(3)]
    for _ in range(2):
        spawn("sqlalchemy", 2.0)
    for thread in threads:
        thread.start()
    for _ in range(KILLS):
        goal = len(lines(spawn.ledger)) + 300
        until(lambda goal=goal: len(lines(spawn.ledger)) >= goal, 60.0)
        server.kill()
        server.start()
    goal = len(lines(spawn.ledger)) + 300
    until(lambda: len(lines(spawn.ledger)) >= goal, 60.0)
    over.set()
    for thread in threads:
        thread.join()
    until(lambda: task.size() == (0, 0, 0, 0), 90.0)
    runs = [tuple(map(int, line.split())) for line in lines(spawn.ledger)]
    ran = {n for n, *_ in runs}
    assert sure - ran == set()
    assert ran <= sure | perhaps | {-1}
    held = {pid: most for _, pid, most, _ in runs}  # by process, the last that it told
    assert len(runs) - len(ran) <= KILLS * sum(held.values())
