"""Wake-ups across processes: who is rung, who is not, and what dead processes leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsdf_engine.brokers import wakeup as module
from fsdf_engine.brokers.wakeup import Waiter, WakeUps, mark

BOUND = 20.0
CHILD = """
import sys
from fsdf_engine.brokers.wakeup import Waiter, WakeUps
waiter = Waiter(WakeUps(sys.argv[1]), "q")
waiter.arm()
print(waiter.slot, flush=True)
print(len(waiter.block(20.0)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "db"
    file.touch()
    return str(file)


@pytest.fixture
def no_sockets_in_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_short", lambda folder: None)


@pytest.fixture(params=["unix", "udp"])
def wakeups(request: pytest.FixtureRequest, path: str) -> Iterator[WakeUps]:
    if request.param == "udp":
        request.getfixturevalue("no_sockets_in_folders")
    opened = WakeUps(path)
    yield opened
    opened.close()


@pytest.fixture
def waiter(wakeups: WakeUps) -> Iterator[Callable[[str], Waiter]]:
    made: list[Waiter] = []

    def make(name: str) -> Waiter:
        made.append(Waiter(wakeups, name))
        return made[-1]

    yield make
    for one in made:
        one.close()


def rung(waiter: Waiter) -> bool:
    return bool(waiter.block(0.0))


def test_ring_wakes_who_waits_for_that_name_only(wakeups: WakeUps, waiter: Callable) -> None:
    mine, other = waiter("mine"), waiter("other")
    mine.arm()
    other.arm()
    wakeups.ring("mine", 5)
    assert mine.block(BOUND)
    assert not rung(other)


def test_nobody_is_rung_who_does_not_wait(wakeups: WakeUps, waiter: Callable) -> None:
    one = waiter("q")
    wakeups.ring("q")
    one.arm()
    one.disarm()
    wakeups.ring("q")
    assert not rung(one)


def test_ring_wakes_as_many_as_there_are_messages(wakeups: WakeUps, waiter: Callable) -> None:
    all_ = [waiter("q") for _ in range(5)]
    for one in all_:
        one.arm()
    wakeups.ring("q", 2)
    assert sum(map(rung, all_)) == 2
    wakeups.ring("q", 2)
    wakeups.ring("q", 2)
    assert sum(map(rung, all_)) == 3


def test_a_ring_before_the_block_is_not_lost(wakeups: WakeUps, waiter: Callable) -> None:
    one = waiter("q")
    one.arm()
    wakeups.ring("q")
    began = time.monotonic()
    assert one.block(BOUND)
    assert time.monotonic() - began < BOUND / 2


def test_wake_ends_a_block_from_another_thread(waiter: Callable) -> None:
    one = waiter("q")
    thread = threading.Thread(target=one.block, args=(BOUND,))
    thread.start()
    one.wake()
    thread.join(BOUND / 2)
    assert not thread.is_alive()


def test_a_closed_waiter_passes_its_ring_on(wakeups: WakeUps, waiter: Callable) -> None:
    first, second = waiter("q"), waiter("q")
    first.arm()
    second.arm()
    wakeups.ring("q")
    (first if rung(first) else second).close()
    assert rung(second) or rung(first)


def test_three_hundred_waiters_have_a_slot_each(wakeups: WakeUps, waiter: Callable) -> None:
    all_ = [waiter("q") for _ in range(300)]
    assert len({one.slot for one in all_}) == 300
    for one in all_:
        one.arm()
    wakeups.ring("q", 300)
    assert all(map(rung, all_))


def test_slots_of_closed_waiters_are_used_again(wakeups: WakeUps) -> None:
    slots = set()
    for _ in range(20):
        one = Waiter(wakeups, "q")
        slots.add(one.slot)
        one.close()
    assert len(slots) == 1


def test_marks_differ_where_their_bytes_overlap(wakeups: WakeUps, waiter: Callable) -> None:
    """A mark that stands across two slots is nobody's."""
    one, two = waiter("q"), waiter("q")
    name = mark("astray")
    wakeups.arm(one.slot, b"\1\1\1\1" + name[:4])
    wakeups.arm(two.slot, name[4:] + b"\1\1\1\1")
    wakeups.ring("astray")
    assert not rung(one)
    assert not rung(two)


@pytest.fixture
def child(path: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_ring_reaches_another_process(path: str, child: subprocess.Popen[str]) -> None:
    child.stdout.readline()
    wakeups = WakeUps(path)
    wakeups.ring("q")
    assert child.stdout.readline() == "1\n"
    wakeups.close()


def test_a_killed_process_takes_no_ring_and_leaves_its_slot(
    path: str, child: subprocess.Popen[str]
) -> None:
    slot = int(child.stdout.readline())
    wakeups = WakeUps(path)
    alive = Waiter(wakeups, "q")
    assert alive.slot != slot
    alive.arm()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    wakeups.ring("q")
    assert rung(alive)
    heir = Waiter(wakeups, "q")
    assert heir.slot == slot
    heir.arm()
    wakeups.ring("q")
    assert rung(heir)
    heir.close()
    alive.close()
    wakeups.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_forked_child_does_not_take_its_parents_slot_away(
    wakeups: WakeUps, waiter: Callable
) -> None:
    one = waiter("q")
    pid = os.fork()
    if pid == 0:
        try:
            one.close()
        finally:
            os._exit(0 if one.inherited else 1)
    assert os.waitpid(pid, 0)[1] == 0
    one.arm()
    wakeups.ring("q")
    assert rung(one)


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    (folder / "db").touch()
    wakeups, elsewhere = WakeUps(str(folder / "db")), WakeUps(str(folder / "db"))
    one = Waiter(wakeups, "q")
    assert not wakeups.port(one.slot)
    assert (folder / "db.bell" / str(one.slot)).is_socket()
    one.arm()
    elsewhere.ring("q")
    assert rung(one)
    one.close()


def test_without_a_safe_place_for_links_ports_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    (folder / "db").touch()
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path / ("z" * 90)))
    wakeups = WakeUps(str(folder / "db"))
    one = Waiter(wakeups, "q")
    assert wakeups.port(one.slot)
    one.arm()
    wakeups.ring("q")
    assert one.block(BOUND)
    one.close()


def test_a_message_that_fits_not_is_reported_and_a_bare_ring_is_not(
    wakeups: WakeUps, waiter
) -> None:
    one = waiter("q")
    if not wakeups.port(one.slot):
        with pytest.raises(BlockingIOError):
            while True:
                wakeups.send(one.slot, b"x" * 1000)
    assert wakeups.send(one.slot)
    assert one.block(BOUND)


def test_others_than_the_owner_cannot_ring(path: str) -> None:
    os.chmod(path, 0o600)
    wakeups = WakeUps(path)
    one = Waiter(wakeups, "q")
    assert os.stat(wakeups.folder).st_mode & 0o777 == 0o700
    assert os.stat(os.path.join(wakeups.folder, "map")).st_mode & 0o777 == 0o600
    one.close()
    wakeups.close()
