"""The SQLite broker: the conformance suite, what a call costs, and several processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from foreign_rows import spoil_table

from fsdf_engine.brokers import sqlite_rows as rows
from fsdf_engine.brokers import sqlite_statements as module
from fsdf_engine.brokers.sqlite import SqliteBroker
from fsdf_engine.contracts import Outgoing, Part, QueueSize
from fsdf_engine.errors import ConfigurationError, PublishError
from fsdf_engine.outcomes import ACK, DeadLetter, Release
from fsdf_engine.testing.brokers import BOUND, MB, BrokerConformance, drain, fetch_some, outgoing
from fsdf_engine.testing.deliveries import bodies

QUEUE = "conformance"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "queue.sqlite"


@pytest.fixture
def broker(path: Path) -> Iterator[SqliteBroker]:
    made = SqliteBroker(str(path))
    yield made
    made.close()


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a script that has `broker`, a SqliteBroker of the first argument."""
    head = (
        "import sys, time, sqlite3\n"
        "from fsdf_engine.brokers.sqlite import SqliteBroker\n"
        "from fsdf_engine.contracts import Outgoing\n"
        "broker = SqliteBroker(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=-1, stdout=-1, text=True)


def count_statements(broker: SqliteBroker) -> list[str]:
    """Return a list that grows with what is executed from now on."""
    seen: list[str] = []
    with broker.file.write() as db:
        db.set_trace_callback(seen.append)
    with broker.file.read() as db:
        db.set_trace_callback(seen.append)
    seen.clear()
    return seen


class TestSqlite(BrokerConformance):
    @pytest.fixture
    def broker(self, path: Path) -> SqliteBroker:
        return SqliteBroker(str(path))

    def spoil(self, broker: SqliteBroker, queue: str) -> int:
        return spoil_table(broker, queue)

    def test_what_has_been_due_before_it_is_published_is_first_in_line(self, broker, open):
        """So is what a stop sends anew."""
        sub = open()
        broker.publish([outgoing(n) for n in range(2)])
        early = [outgoing(n, not_before=1.0) for n in (2, 3)]
        broker.publish([*early, outgoing(4)])
        assert bodies(drain(sub)) == [outgoing(n).body for n in (2, 3, 0, 1, 4)]
        broker.publish(early)  # and where nothing waits
        assert bodies(drain(sub)) == [item.body for item in early]


class TestMessages:
    def test_id_headers_and_time_come_with_a_delivery(self, broker: SqliteBroker) -> None:
        before = time.time()
        broker.publish([Outgoing(QUEUE, "the id", b"{}", {"trace": "ж"})])
        sub = broker.subscribe(QUEUE, lease=30)
        [d] = sub.fetch(1, MB)
        assert (d.id, d.headers) == ("the id", {"trace": "ж"})
        assert before <= d.published_at <= time.time()

    def test_a_row_inserted_by_hand_is_a_message(self, broker: SqliteBroker, path: Path) -> None:
        broker.check()
        with sqlite3.connect(path) as db:
            for _ in range(2):
                db.execute(
                    "INSERT INTO message (queue, body) VALUES (?, ?)", (QUEUE, '{"a":3,"b":6}')
                )
        db.close()
        sub = broker.subscribe(QUEUE, lease=30)
        found = drain(sub)
        assert [d.body for d in found] == [b'{"a":3,"b":6}'] * 2
        assert len({d.id for d in found}) == 2
        sub.settle([(found[0].lease, DeadLetter("bad"))])
        [letter] = broker.dead_letters(QUEUE)
        assert letter.body == b'{"a":3,"b":6}'

    def test_a_value_without_a_place_is_named_and_nothing_is_stored(
        self, broker: SqliteBroker
    ) -> None:
        bad = Outgoing(QUEUE, "\ud800", b"{}")
        with pytest.raises(PublishError) as caught:
            broker.publish([outgoing(1), bad])
        assert bad in caught.value.rejected
        assert broker.size(QUEUE) == (0, 0, 0, 0)
        broker.publish([outgoing(1)])

    def test_a_lease_named_twice_is_lost_the_second_time(self, broker: SqliteBroker) -> None:
        broker.publish([outgoing(n) for n in range(3)])
        sub = broker.subscribe(QUEUE, lease=30)
        leases = [d.lease for d in drain(sub)]
        assert not sub.settle([(leases[0], ACK)])
        lost = sub.settle([(leases[0], ACK), (leases[1], ACK), (leases[0], Release())])
        assert list(lost) == [leases[0], leases[0]]
        assert broker.size(QUEUE) == (0, 0, 1, 0)

    def test_size_counts_what_is_due_as_waiting(self, broker: SqliteBroker) -> None:
        sub = broker.subscribe(QUEUE, lease=0.05)
        broker.publish([outgoing(1), outgoing(2, delay=0.05)])
        sub.fetch(1, MB)
        sub.wait(BOUND)
        time_of_both = time.time() + 0.06
        while time.time() < time_of_both:
            sub.wait(0.02)
        assert broker.size(QUEUE) == (2, 0, 0, 0)
        assert broker.purge(QUEUE, Part.WAITING) == 2

    @pytest.mark.parametrize("url", ["", ":memory:", "sqlite://", "sqlite:///"])
    def test_what_names_no_file_is_refused(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="names no file"):
            SqliteBroker(url)

    def test_a_url_is_taken_as_well_as_a_path(self, path: Path) -> None:
        assert SqliteBroker(f"sqlite:///{path}").file is SqliteBroker(str(path)).file

    def test_nothing_is_opened_before_the_first_call(self, path: Path) -> None:
        broker = SqliteBroker(str(path))
        broker.subscribe(QUEUE, lease=30).close()
        assert not path.parent.exists()
        broker.check()
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600


class TestCost:
    """What a call does, counted; a clock would decide nothing on a busy machine."""

    def steps(self, broker: SqliteBroker) -> int:
        """Fetch 100, settle, and return how many thousands of SQLite's instructions it took."""
        sub = broker.subscribe(QUEUE, lease=30)
        count = 0

        def tick() -> None:
            nonlocal count
            count += 1

        with broker.file.write() as db:
            db.set_progress_handler(tick, 1000)
        sub.settle([(d.lease, ACK) for d in sub.fetch(100, MB)])
        with broker.file.write() as db:
            db.set_progress_handler(None, 0)
        return count

    def test_many_waiting_messages_do_not_slow_a_fetch(self, broker: SqliteBroker) -> None:
        broker.publish([outgoing(n, priority=n % 3) for n in range(500)])
        few = self.steps(broker)
        for _ in range(10):
            broker.publish([outgoing(n, priority=n % 3) for n in range(10_000)])
            broker.publish([outgoing(n, delay=60 + n) for n in range(1000)])
        assert self.steps(broker) <= few * 1.2 + 1

    @pytest.mark.parametrize("name", ["WAITING", "PROMOTE", "EARLIER", "NEXT", "ENDED", "MEND"])
    def test_statements_of_a_fetch_use_an_index_and_never_sort(
        self, broker: SqliteBroker, name: str
    ) -> None:
        broker.publish([outgoing(n) for n in range(100)])
        statement = getattr(module if hasattr(module, name) else rows, name)
        with broker.file.read() as db:
            values = {"queue": QUEUE} if ":queue" in statement else (QUEUE, 5, 5)
            if "?" in statement:
                values = values[: statement.count("?")]
            plan = db.execute("EXPLAIN QUERY PLAN " + statement, values).fetchall()
        steps = [row[3] for row in plan if "message" in row[3] or "lease" in row[3]]
        assert steps
        assert all("SEARCH" in step and ("INDEX" in step or "PRIMARY" in step) for step in steps)
        assert not any("TEMP B-TREE" in row[3] for row in plan)

    def test_statements_do_not_grow_with_the_batch(self, broker: SqliteBroker) -> None:
        counts = []
        sub = broker.subscribe(QUEUE, lease=30)
        for n in (10, 500):
            broker.publish([outgoing(k) for k in range(n)])
            seen = count_statements(broker)
            leases = [d.lease for d in sub.fetch(n, MB)]
            sub.extend(leases)
            sub.settle([(lease, ACK) for lease in leases])
            counts.append(len(seen))
        assert counts[0] == counts[1] <= 20

    def test_a_waiting_consumer_executes_nothing(self, broker: SqliteBroker) -> None:
        sub = broker.subscribe(QUEUE, lease=30)
        sub.fetch(1, MB)
        sub.wait(0.0)
        seen = count_statements(broker)
        sub.wait(0.3)
        assert len([x for x in seen if "PRAGMA" not in x]) == 1
        sub.close()

    def test_threads_share_connections(self, broker: SqliteBroker) -> None:
        psutil = pytest.importorskip("psutil")
        broker.publish([outgoing(0)])
        broker.size(QUEUE)
        before = psutil.Process().num_fds()
        threads = [
            threading.Thread(target=broker.publish, args=([outgoing(n)],)) for n in range(50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert psutil.Process().num_fds() <= before
        assert broker.size(QUEUE).waiting == 51


class TestProcesses:
    def test_new_connection_leaves_the_locks_of_the_others(
        self, broker: SqliteBroker, path: Path
    ) -> None:
        """To close any descriptor would end them, and who closes last takes the log away."""
        broker.publish([outgoing(1)])
        assert broker.size(QUEUE).waiting == 1
        child = python(f"broker.publish([Outgoing({QUEUE!r}, '1', b'{{}}')]); broker.close()", path)
        assert child.wait(BOUND) == 0
        assert path.with_name("queue.sqlite-wal").exists()
        broker.publish([outgoing(2)])
        assert broker.size(QUEUE).waiting == 3

    def test_processes_that_open_a_new_file_at_once_all_publish(
        self, broker: SqliteBroker, path: Path
    ) -> None:
        children = [python("broker.publish([Outgoing('q', '1', b'{}')])", path) for _ in range(6)]
        assert [child.wait(BOUND) for child in children] == [0] * 6
        assert broker.size("q").waiting == 6

    def test_a_message_of_another_process_ends_the_wait(
        self, broker: SqliteBroker, path: Path
    ) -> None:
        sub = broker.subscribe(QUEUE, lease=30)
        assert not sub.fetch(1, MB)
        code = f"broker.publish([Outgoing({QUEUE!r}, '1', b'{{}}', delay=float(sys.argv[2]))])"
        broker.publish([outgoing(1, delay=600)])
        child = python(code, path, 0.2)
        assert [d.body for d in fetch_some(sub)] == [b"{}"]
        assert child.wait(BOUND) == 0
        sub.close()

    def test_messages_of_a_killed_process_come_back(self, broker: SqliteBroker, path: Path) -> None:
        broker.publish([outgoing(n) for n in range(5)])
        code = (
            f"s = broker.subscribe({QUEUE!r}, lease=0.3)\nprint(len(s.fetch(3, 9999)), flush=True)"
        )
        child = python(code + "\nsys.stdin.read()", path)
        assert child.stdout.readline() == "3\n"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        sub = broker.subscribe(QUEUE, lease=30)
        found = list(fetch_some(sub))
        while len(found) < 5:
            found += fetch_some(sub)
        assert sorted(d.deliveries for d in found) == [0, 0, 1, 1, 1]
        assert broker.size(QUEUE) == QueueSize(0, 0, 5, 0)
        child.communicate()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
    def test_forks_amid_traffic_lose_nothing(self, broker: SqliteBroker) -> None:
        stop = threading.Event()
        sent = 0

        def publish() -> None:
            nonlocal sent
            while not stop.is_set():
                broker.publish([outgoing(sent)])
                sent += 1

        thread = threading.Thread(target=publish)
        thread.start()
        sub = broker.subscribe(QUEUE, lease=30)
        sub.wait(0.0)
        statuses = []
        for n in range(20):
            pid = os.fork()
            if pid == 0:
                code = 1
                signal.alarm(int(BOUND))
                try:
                    broker.publish([Outgoing("children", str(n), b"{}")])
                    sub.wait(0.0)
                    code = 0
                finally:
                    os._exit(code)
            statuses.append(os.waitpid(pid, 0)[1])
        stop.set()
        thread.join()
        assert statuses == [0] * 20
        assert broker.size("children").waiting == 20
        assert broker.size(QUEUE).waiting == sent
        with broker.file.read() as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        sub.close()
