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

from fsdf_engine.brokers import bell as module
from fsdf_engine.brokers.bell import Bell, Waiter, mark

BOUND = 20.0
CHILD = """
import sys
from fsdf_engine.brokers.bell import Bell, Waiter
waiter = Waiter(Bell(sys.argv[1]), "q")
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
def bell(request: pytest.FixtureRequest, path: str) -> Iterator[Bell]:
    if request.param == "udp":
        request.getfixturevalue("no_sockets_in_folders")
    opened = Bell(path)
    yield opened
    opened.close()


@pytest.fixture
def waiter(bell: Bell) -> Iterator[Callable[[str], Waiter]]:
    made: list[Waiter] = []

    def make(name: str) -> Waiter:
        made.append(Waiter(bell, name))
        return made[-1]

    yield make
    for one in made:
        one.close()


def rung(waiter: Waiter) -> bool:
    return bool(waiter.block(0.0))


def test_ring_wakes_who_waits_for_that_name_only(bell: Bell, waiter: Callable) -> None:
    mine, other = waiter("mine"), waiter("other")
    mine.arm()
    other.arm()
    bell.ring("mine", 5)
    assert mine.block(BOUND)
    assert not rung(other)


def test_nobody_is_rung_who_does_not_wait(bell: Bell, waiter: Callable) -> None:
    one = waiter("q")
    bell.ring("q")
    one.arm()
    one.disarm()
    bell.ring("q")
    assert not rung(one)


def test_ring_wakes_as_many_as_there_are_messages(bell: Bell, waiter: Callable) -> None:
    all_ = [waiter("q") for _ in range(5)]
    for one in all_:
        one.arm()
    bell.ring("q", 2)
    assert sum(map(rung, all_)) == 2
    bell.ring("q", 2)
    bell.ring("q", 2)
    assert sum(map(rung, all_)) == 3


def test_a_ring_before_the_block_is_not_lost(bell: Bell, waiter: Callable) -> None:
    one = waiter("q")
    one.arm()
    bell.ring("q")
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


def test_a_closed_waiter_passes_its_ring_on(bell: Bell, waiter: Callable) -> None:
    first, second = waiter("q"), waiter("q")
    first.arm()
    second.arm()
    bell.ring("q")
    (first if rung(first) else second).close()
    assert rung(second) or rung(first)


def test_three_hundred_waiters_have_a_slot_each(bell: Bell, waiter: Callable) -> None:
    all_ = [waiter("q") for _ in range(300)]
    assert len({one.slot for one in all_}) == 300
    for one in all_:
        one.arm()
    bell.ring("q", 300)
    assert all(map(rung, all_))


def test_slots_of_closed_waiters_are_used_again(bell: Bell) -> None:
    slots = set()
    for _ in range(20):
        one = Waiter(bell, "q")
        slots.add(one.slot)
        one.close()
    assert len(slots) == 1


def test_marks_differ_where_their_bytes_overlap(bell: Bell, waiter: Callable) -> None:
    """A mark that stands across two slots is nobody's."""
    one, two = waiter("q"), waiter("q")
    name = mark("astray")
    bell.arm(one.slot, b"\1\1\1\1" + name[:4])
    bell.arm(two.slot, name[4:] + b"\1\1\1\1")
    bell.ring("astray")
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
    bell = Bell(path)
    bell.ring("q")
    assert child.stdout.readline() == "1\n"
    bell.close()


def test_a_killed_process_takes_no_ring_and_leaves_its_slot(
    path: str, child: subprocess.Popen[str]
) -> None:
    slot = int(child.stdout.readline())
    bell = Bell(path)
    alive = Waiter(bell, "q")
    assert alive.slot != slot
    alive.arm()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    bell.ring("q")
    assert rung(alive)
    heir = Waiter(bell, "q")
    assert heir.slot == slot
    heir.arm()
    bell.ring("q")
    assert rung(heir)
    heir.close()
    alive.close()
    bell.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_forked_child_does_not_take_its_parents_slot_away(bell: Bell, waiter: Callable) -> None:
    one = waiter("q")
    pid = os.fork()
    if pid == 0:
        try:
            one.close()
        finally:
            os._exit(0 if one.inherited else 1)
    assert os.waitpid(pid, 0)[1] == 0
    one.arm()
    bell.ring("q")
    assert rung(one)


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    (folder / "db").touch()
    bell, elsewhere = Bell(str(folder / "db")), Bell(str(folder / "db"))
    one = Waiter(bell, "q")
    assert not bell.port(one.slot)
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
    bell = Bell(str(folder / "db"))
    one = Waiter(bell, "q")
    assert bell.port(one.slot)
    one.arm()
    bell.ring("q")
    assert one.block(BOUND)
    one.close()


def test_a_message_that_fits_not_is_reported_and_a_bare_ring_is_not(bell: Bell, waiter) -> None:
    one = waiter("q")
    if not bell.port(one.slot):
        with pytest.raises(BlockingIOError):
            while True:
                bell.send(one.slot, b"x" * 1000)
    assert bell.send(one.slot)
    assert one.block(BOUND)


def test_others_than_the_owner_cannot_ring(path: str) -> None:
    os.chmod(path, 0o600)
    bell = Bell(path)
    one = Waiter(bell, "q")
    assert os.stat(bell.folder).st_mode & 0o777 == 0o700
    assert os.stat(os.path.join(bell.folder, "map")).st_mode & 0o777 == 0o600
    one.close()
    bell.close()
