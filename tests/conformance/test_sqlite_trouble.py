"""What a file can suffer: locks, full disks, other formats, missing rights, interrupts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import until

from fsdf_engine.brokers import sqlite_file
from fsdf_engine.brokers.sqlite import SqliteBroker
from fsdf_engine.brokers.wakeup import mark
from fsdf_engine.contracts import Outgoing
from fsdf_engine.errors import BrokerError, PublishError, ServerRefused, Unavailable
from fsdf_engine.outcomes import ACK
from fsdf_engine.testing.brokers import BOUND, MB, fetch_some, outgoing

QUEUE = "conformance"
STOPPED = """
import os, signal, sys
from fsdf_engine.brokers.sqlite import SqliteBroker
with SqliteBroker(sys.argv[1]).file.write():
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "queue.sqlite"


@pytest.fixture
def broker(path: Path) -> Iterator[SqliteBroker]:
    made = SqliteBroker(str(path))
    yield made
    made.close()


def sqlite_errors() -> list[type[sqlite3.Error]]:
    """Return every error class of the library."""
    kinds = [kind for kind in vars(sqlite3).values() if isinstance(kind, type)]
    return sorted({k for k in kinds if issubclass(k, sqlite3.Error)}, key=lambda k: k.__name__)


class TestGrace:
    """Another program holds the file for longer than a lease; then owners extend first."""

    @pytest.fixture
    def owner(self, path: Path) -> Iterator[SqliteBroker]:
        made = SqliteBroker(str(path), patience=0.11)
        yield made
        made.close()

    @pytest.fixture
    def other(self, path: Path) -> Iterator[SqliteBroker]:
        """As in another process: it does not know of the first one."""
        made = SqliteBroker(str(path), patience=0.12)
        yield made
        made.close()

    def hold(self, path: Path, *calls: Callable[[], object]) -> None:
        """Hold the file for 1.7 s, in which nobody can write, however often he tries."""
        end = time.monotonic() + 1.7
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            while time.monotonic() < end:
                for call in calls:
                    with pytest.raises(Unavailable):
                        call()
            db.execute("COMMIT")

    @pytest.mark.parametrize("tries", [True, False])
    def test_runs_that_live_are_not_repeated(self, path, owner, other, tries: bool) -> None:
        mine, theirs = owner.subscribe(QUEUE, lease=1.5), other.subscribe(QUEUE, lease=1.5)
        owner.publish([outgoing(n) for n in range(3)])
        leases = [d.lease for d in mine.fetch(3, MB)]
        assert not theirs.fetch(3, MB)
        calls = [lambda: mine.extend(leases)]
        if tries:
            calls.append(lambda: theirs.fetch(3, MB))
        self.hold(path, *calls)
        assert not theirs.fetch(3, MB)
        assert not mine.fetch(3, MB)
        assert set(mine.extend(leases)) == set(leases)
        assert not mine.settle([(lease, ACK) for lease in leases])
        assert owner.size(QUEUE) == (0, 0, 0, 0)

    def test_messages_of_an_owner_that_died_come_after_the_grace(self, path, owner, other) -> None:
        owner.publish([outgoing(1)])
        assert owner.subscribe(QUEUE, lease=0.3).fetch(1, MB)
        sub = other.subscribe(QUEUE, lease=0.3)
        assert not sub.fetch(1, MB)
        self.hold(path)
        assert not sub.fetch(1, MB)
        [d] = fetch_some(sub)
        assert d.deliveries == 1

    def test_worker_that_seldom_fetches_reaps_all_the_same(self, owner) -> None:
        owner.publish([outgoing(1)])
        sub = owner.subscribe(QUEUE, lease=0.05)
        assert sub.fetch(1, MB)
        sub.wait(0.1)
        sub.wait(0.1)
        for _ in range(2):
            owner.file.free_at -= 100.0
            found = sub.fetch(1, MB)
            sub._grace._until = 0.0  # as if as much time had passed
        assert [d.deliveries for d in found] == [1]

    def test_ended_leases_of_a_free_file_have_no_grace(self, owner, other) -> None:
        owner.publish([outgoing(1)])
        assert owner.subscribe(QUEUE, lease=1.3).fetch(1, MB)
        sub = other.subscribe(QUEUE, lease=1.3)
        assert fetch_some(sub)
        assert sub._grace._until == 0.0


class TestTrouble:
    def test_a_file_locked_for_long_is_unavailable_and_then_works(self, path: Path) -> None:
        broker = SqliteBroker(str(path), patience=0.1)
        broker.check()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match=r"queue\.sqlite has been locked"):
            broker.publish([outgoing(1)])
        with pytest.raises(Unavailable):
            broker.subscribe(QUEUE, lease=1).fetch(1, MB)
        other.execute("COMMIT")
        broker.publish([outgoing(2)])
        assert broker.size(QUEUE).waiting == 1
        other.close()
        broker.close()

    @pytest.mark.parametrize("kind", sqlite_errors(), ids=lambda kind: kind.__name__)
    def test_every_error_of_sqlite_is_told_as_one_of_ours(
        self, broker: SqliteBroker, kind: type[sqlite3.Error]
    ) -> None:
        broker.check()
        with pytest.raises(BrokerError), broker.file.write():
            raise kind("told")
        broker.publish([outgoing(1)])

        def fail(*_: object) -> None:
            raise kind("told")

        broker.file.queue_up = fail  # type: ignore[method-assign]
        with pytest.raises((Unavailable, PublishError)):
            broker.publish([outgoing(2)])
        del broker.file.queue_up
        broker.publish([outgoing(3)])
        assert broker.size(QUEUE).waiting == 2

    @pytest.mark.parametrize("replaced", [False, True])
    @pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
    def test_a_removed_file_is_noticed_and_a_new_one_is_used(
        self, broker: SqliteBroker, path: Path, caplog, monkeypatch, replaced: bool, folder: bool
    ) -> None:
        monkeypatch.setattr(sqlite_file, "GLANCE", 0.0)
        sub = broker.subscribe(QUEUE, lease=30)
        broker.publish([outgoing(n) for n in range(3)])
        [d] = sub.fetch(1, MB)
        sub.wait(0.0)
        if folder:
            shutil.rmtree(f"{path}.bell")
        for file in path.parent.glob("queue.sqlite*"):
            if file.is_file():
                file.unlink()
        if replaced:
            other = SqliteBroker(str(path), patience=9.0)  # as another process
            other.publish([outgoing(7)])
            other.close()
        assert broker.size(QUEUE).waiting == replaced
        broker.publish([outgoing(8)])
        assert path.stat().st_mode & 0o777 == 0o600
        assert list(sub.settle([(d.lease, ACK)])) == [d.lease]
        assert len(sub.fetch(5, MB)) == 1 + replaced
        assert caplog.text.count("was removed or replaced") == 1
        waiter = threading.Thread(target=sub.wait, args=(BOUND,))
        waiter.start()
        second = SqliteBroker(str(path), patience=8.0)
        until(lambda: sub._waiter and second.file.wakeups.armed(sub._waiter.slot, mark(QUEUE)))
        second.publish([outgoing(9)])
        waiter.join(BOUND / 2)
        assert not waiter.is_alive()
        second.close()
        sub.close()

    def test_a_full_disk_is_unavailable_and_loses_nothing(self, broker: SqliteBroker) -> None:
        with broker.file.write() as db:
            [pages] = db.execute("PRAGMA page_count").fetchone()
            db.execute(f"PRAGMA max_page_count = {pages + 284}")
        stored = 0
        with pytest.raises(Unavailable, match=r"full: free some space; nothing was stored"):
            while stored < 5000:
                broker.publish([Outgoing(QUEUE, "1", b"x" * 5000), Outgoing(QUEUE, "2", b"{}")])
                stored += 2
        assert broker.size(QUEUE) == (stored, 0, 0, 0)
        sub = broker.subscribe(QUEUE, lease=30)
        with broker.file.write() as db:
            db.execute(f"PRAGMA max_page_count = {pages + 290}")  # a lease needs a page, too
        sub.settle([(d.lease, ACK) for d in sub.fetch(50, MB)])
        broker.publish([Outgoing(QUEUE, "1", b"x" * 50_000)])
        with broker.file.write() as db:
            db.execute("PRAGMA max_page_count = 1000000")
        broker.publish([Outgoing(QUEUE, "1", b"x" * 500_000)])

    def test_a_file_that_is_no_database_is_refused_and_kept(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_bytes(b"my diary, of some length " * 100)
        broker = SqliteBroker(str(path))
        with pytest.raises(ServerRefused, match=r"queue\.sqlite is not a sound SQLite database"):
            broker.check()
        assert path.read_bytes() == b"my diary, of some length " * 100

    def test_a_newer_format_is_refused(self, path: Path) -> None:
        SqliteBroker(str(path)).check()
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
        broker = SqliteBroker(str(path))
        broker.close()
        with pytest.raises(ServerRefused, match="format 99 of a newer fsdf"):
            broker.check()

    def test_an_old_sqlite_is_refused(
        self, broker: SqliteBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_file.sqlite3, "sqlite_version_info", (3, 34, 1))
        with pytest.raises(ServerRefused, match=r"3\.35 or later is needed"):
            broker.check()

    def test_a_path_through_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ServerRefused, match="set SQLITE_PATH to another path"):
            SqliteBroker(str(tmp_path / "file" / "queue.sqlite")).check()

    def test_a_folder_in_place_of_the_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ServerRefused, match="set SQLITE_PATH to another path"):
            SqliteBroker(str(tmp_path)).check()

    @pytest.mark.skipif(not hasattr(os, "seteuid"), reason="the platform has no users")
    @pytest.mark.parametrize("exists", [False, True])
    def test_what_may_not_be_written_is_refused(self, tmp_path_factory, exists: bool) -> None:
        folder = tmp_path_factory.mktemp("readonly")
        path, me = folder / "queue.sqlite", os.geteuid()
        if exists:
            maker = SqliteBroker(str(path))
            maker.publish([outgoing(1)])
            maker.close()
            path.chmod(0o444)
        folder.chmod(0o555)
        for parent in folder.parents[:2]:
            parent.chmod(0o755)
        if me == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(ServerRefused, match="make the file and its folder writable"):
                SqliteBroker(str(path)).publish([outgoing(2)])
        finally:
            os.seteuid(me)
            folder.chmod(0o755)

    def test_the_file_shrinks_when_it_is_idle(self, broker: SqliteBroker, path: Path) -> None:
        for _ in range(20):
            broker.publish([Outgoing(QUEUE, str(n), b"x" * 1000) for n in range(1000)])
        sub = broker.subscribe(QUEUE, lease=30)
        while found := sub.fetch(500, MB):
            sub.settle([(d.lease, ACK) for d in found])
        before = path.stat().st_size
        assert before > 20 * MB
        for _ in range(100):
            sub.wait(0.05)
            if path.stat().st_size < MB:
                break
        assert path.stat().st_size < MB
        sub.close()

    def test_a_message_interrupts_the_shrinking(
        self, broker: SqliteBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sub = broker.subscribe(QUEUE, lease=30)
        calls: list[int] = []

        def shrink() -> bool:
            calls.append(1)
            if len(calls) == 3:
                broker.publish([outgoing(1)])
            return True

        monkeypatch.setattr(broker.file, "shrink", shrink)
        sub.wait(BOUND)
        assert len(calls) == 3
        assert len(sub.fetch(1, MB)) == 1
        sub.close()

    def test_an_interrupt_inside_a_transaction_leaves_nothing_open(
        self, broker: SqliteBroker
    ) -> None:
        with pytest.raises(KeyboardInterrupt), broker.file.write() as db:
            db.execute("INSERT INTO message (queue, body) VALUES ('q', 'x')")
            raise KeyboardInterrupt
        assert broker.size("q").waiting == 0
        with broker.file.write() as db:
            db.execute("INSERT INTO message (queue, body) VALUES ('q', 'x')")
        assert broker.size("q").waiting == 1

    def test_a_stopped_process_that_writes_blocks_others_for_their_patience_only(
        self, path: Path
    ) -> None:
        broker = SqliteBroker(str(path), patience=0.3)
        broker.publish([outgoing(1)])
        holder = subprocess.Popen([sys.executable, "-c", STOPPED, str(path)])
        try:
            os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
            for _ in range(2):
                with pytest.raises(Unavailable, match="locked"):
                    broker.publish([outgoing(2)])
            holder.send_signal(signal.SIGCONT)
            assert holder.wait(BOUND) == 0
            broker.publish([outgoing(3)])
            assert broker.size(QUEUE).waiting == 2
        finally:
            holder.kill()
            holder.wait()
            broker.close()

    def test_interrupts_at_any_moment_block_nobody(self, path: Path) -> None:
        """As Ctrl-C, or a timeout in a thread, that strikes somewhere in a publish."""
        broker, stop = SqliteBroker(str(path), patience=5.0), threading.Event()
        broker.check()
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        stored = 0

        def publish() -> None:
            nonlocal stored
            while not stop.is_set():
                try:
                    while not stop.is_set():
                        broker.publish([outgoing(1)])
                        stored += 1
                except InterruptedError:
                    continue

        def loop() -> None:
            while not stop.is_set():
                with contextlib.suppress(InterruptedError):
                    publish()

        thread = threading.Thread(target=loop)
        thread.start()
        for _ in range(300):
            before = stored
            raise_in(ctypes.c_ulong(thread.ident), ctypes.py_object(InterruptedError))
            broker.subscribe(QUEUE, lease=30).fetch(1, MB)
            until(lambda: stored != before or not thread.is_alive())
            if not thread.is_alive():  # it struck outside of the loop's own guard
                thread = threading.Thread(target=loop)
                thread.start()
        stop.set()
        thread.join(BOUND)
        assert not thread.is_alive()
        assert sum(broker.size(QUEUE)) >= stored
        broker.close()
