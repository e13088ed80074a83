"""The SQL broker on real servers: the conformance suite, and what is its own."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from foreign_sql_rows import spoil_database
from helpers import until

from fsdf_engine.brokers import sql_session
from fsdf_engine.brokers.sql import SqlBroker
from fsdf_engine.brokers.sql_postgresql import _CLAIM
from fsdf_engine.brokers.sql_schema import schema_text
from fsdf_engine.brokers.sql_session import Session
from fsdf_engine.brokers.sqlite import SqliteBroker
from fsdf_engine.contracts import Outgoing, Part
from fsdf_engine.errors import ConfigurationError, PublishError, ServerRefused, Unavailable
from fsdf_engine.outcomes import ACK, DeadLetter, Release
from fsdf_engine.testing.brokers import BOUND, MB, BrokerConformance, drain, fetch_some, outgoing
from fsdf_engine.testing.deliveries import bodies

QUEUE = "conformance"
SERVERS = ("postgresql", "mysql")


def with_tables(url: str) -> SqlBroker:
    """Return a broker that has connected: to make the tables takes time."""
    broker = SqlBroker(url)
    broker.check()
    return broker


class TestPostgresql(BrokerConformance):
    @pytest.fixture
    def broker(self, postgresql_url: str) -> SqlBroker:
        return with_tables(postgresql_url)

    def spoil(self, broker: SqlBroker, queue: str) -> int:
        return spoil_database(broker, queue)


class TestMysql(BrokerConformance):
    @pytest.fixture
    def broker(self, mysql_url: str) -> SqlBroker:
        return with_tables(mysql_url)

    def spoil(self, broker: SqlBroker, queue: str) -> int:
        return spoil_database(broker, queue)


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, on each server."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def broker(url: str) -> Iterator[SqlBroker]:
    made = SqlBroker(url)
    yield made
    made.close()


def run(broker: SqlBroker, *statements: str) -> list[tuple[object, ...]]:
    """Execute statements as another program does; return what the last one gives."""
    found = [broker.database.rows(broker.database.sql(sql), {}) for sql in statements]
    return found[-1]


def as_user(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{user}:{password}@{parts.hostname}:{parts.port}{parts.path}"


class TestMessages:
    def test_a_row_inserted_by_hand_is_a_message(self, broker: SqlBroker) -> None:
        insert = f"INSERT INTO @message (queue, body) VALUES ('{QUEUE}', '{{\"a\": 3}}')"
        broker.check()
        run(broker, insert, insert)
        found = drain(broker.subscribe(QUEUE, lease=30))
        assert [d.body for d in found] == [b'{"a": 3}'] * 2
        assert len({d.id for d in found}) == 2

    def test_what_has_been_due_before_it_is_published_is_first_in_line(
        self, broker: SqlBroker
    ) -> None:
        sub = broker.subscribe(QUEUE, lease=30)
        broker.publish([outgoing(n) for n in range(2)])
        broker.publish([*(outgoing(n, not_before=1.0) for n in (2, 3)), outgoing(4)])
        assert bodies(drain(sub)) == [outgoing(n).body for n in (2, 3, 0, 1, 4)]

    def test_ids_and_reasons_of_any_characters_are_kept(self, broker: SqlBroker) -> None:
        broker.publish([Outgoing(QUEUE, "\ud800\0", b"{}", {"a": "\0\ud800"})])
        sub = broker.subscribe(QUEUE, lease=30)
        [d] = drain(sub)
        assert (d.id, d.headers) == ("\\ud800\\x00", {"a": "\0\ud800"})
        assert not sub.settle([(d.lease, DeadLetter("\0 \ud800", "\0"))])
        [letter] = broker.dead_letters(QUEUE)
        assert (letter.reason, letter.trace) == ("\\x00 \\ud800", "\\x00")

    def test_a_lease_named_twice_is_lost_the_second_time(self, broker: SqlBroker) -> None:
        broker.publish([outgoing(n) for n in range(3)])
        sub = broker.subscribe(QUEUE, lease=30)
        leases = [d.lease for d in drain(sub)]
        lost = sub.settle([(leases[0], ACK), (leases[1], ACK), (leases[0], Release())])
        assert list(lost) == [leases[0]]
        assert broker.size(QUEUE) == (0, 0, 1, 0)

    def test_what_the_server_cannot_take_is_named_and_the_rest_is_stored(
        self, broker: SqlBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sql_session, "LARGEST", 300_000)
        broker.close()
        large = Outgoing(QUEUE, "large", b"x" * 250_000)
        with pytest.raises(PublishError) as caught:
            broker.publish([outgoing(1), large, outgoing(2)])
        assert list(caught.value.rejected) == [large]
        assert broker.size(QUEUE).waiting == 2

    def test_names_that_no_column_takes_are_refused(self) -> None:
        for name in ("x" * 256, "ж" * 128, "a\0b"):
            with pytest.raises(ConfigurationError, match="255 bytes"):
                SqlBroker.valid_queue(name)
        SqlBroker.valid_queue("ж" * 127)

    def test_names_that_differ_in_blanks_and_case_are_two(self, broker: SqlBroker) -> None:
        for name in ("a", "a ", "A"):
            broker.publish([outgoing(1, name)])
        assert broker.queues() == ["A", "a", "a "]
        assert broker.purge("a") == 1

    def test_leases_leave_no_rows_behind(self, broker: SqlBroker) -> None:
        sub = broker.subscribe(QUEUE, lease=30)
        for n in range(5):
            broker.publish([outgoing(n)])
            sub.settle([(d.lease, ACK) for d in drain(sub)])
        drain(sub)
        assert [int(str(count)) for [count] in run(broker, "SELECT count(*) FROM @lease")] == [0]


class TestWaiting:
    def test_another_process_wakes_who_waits(self, broker: SqlBroker, url: str) -> None:
        """At once on PostgreSQL, at the next look elsewhere."""
        sub, came = broker.subscribe(QUEUE, lease=30), threading.Event()

        def wait() -> None:
            fetch_some(sub)
            came.set()

        assert not sub.fetch(1, MB)
        waiter = threading.Thread(target=wait)
        waiter.start()
        child = os.fork()
        if child == 0:  # the parent's connections are left alone
            try:
                SqlBroker(url).publish([outgoing(1)])
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert came.wait(BOUND)
        waiter.join()
        assert broker.size(QUEUE) == (0, 0, 1, 0)

    def test_forked_child_opens_connections_of_its_own(self, broker: SqlBroker) -> None:
        broker.publish([outgoing(1)])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                broker.publish([outgoing(2)])
                code = int(broker.size(QUEUE).waiting != 2)
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        broker.publish([outgoing(3)])
        assert broker.size(QUEUE).waiting == 3

    def test_nobody_is_notified_where_nobody_waits(self, postgresql_url: str) -> None:
        import psycopg

        broker, sub = SqlBroker(postgresql_url), None
        heard: list[str] = []
        from fsdf_engine.brokers.sql_postgresql import channel_of

        with psycopg.connect(postgresql_url, autocommit=True) as db:
            db.execute(f"LISTEN {channel_of(QUEUE)}")
            broker.publish([outgoing(n) for n in range(10)])
            sub = broker.subscribe(QUEUE, lease=30)
            drain(sub)
            waiter = threading.Thread(target=sub.wait, args=(BOUND,))
            waiter.start()
            until(lambda: run(broker, "SELECT 1 FROM @waiter"))
            broker.publish([outgoing(n) for n in range(10)])
            waiter.join(BOUND)
            heard = [told.payload for told in db.notifies(timeout=5.0, stop_after=1)]
            heard += [told.payload for told in db.notifies(timeout=0.1)]
        assert len(heard) == 1
        broker.close()

    def test_who_is_gone_is_not_notified_in_place_of_who_waits(self, postgresql_url: str) -> None:
        broker = SqlBroker(postgresql_url)
        broker.check()
        run(broker, f"INSERT INTO @waiter SELECT n, '{QUEUE}', 1e12, 999999"
                    " FROM generate_series(1, 5) AS n")  # fmt: skip
        sub = broker.subscribe(QUEUE, lease=30)
        waiter = threading.Thread(target=sub.wait, args=(BOUND,))
        waiter.start()
        until(lambda: run(broker, "SELECT 1 FROM @waiter WHERE token > 5"))
        began = time.monotonic()
        broker.publish([outgoing(1)])
        waiter.join(BOUND)
        assert time.monotonic() - began < 3.0  # it would look by itself after 5 s
        broker.close()


class TestTables:
    def test_a_schema_of_its_own_is_made(self, postgresql_url: str) -> None:
        broker = SqlBroker(postgresql_url + "?schema=My queues&pool_size=1")
        broker.publish([outgoing(1)])
        sub = broker.subscribe(QUEUE, lease=30)
        assert sub.settle([(d.lease, ACK) for d in drain(sub)]) == []
        found = run(broker, "SELECT table_schema FROM information_schema.tables"
                            " WHERE table_name = 'fsdf_message'")  # fmt: skip
        assert found == [("My queues",)]
        broker.close()

    def test_threads_make_the_tables_at_the_same_time(self, broker: SqlBroker) -> None:
        _twelve_publish(broker)

    def test_two_processes_make_the_tables_at_the_same_time(self, url: str) -> None:
        children = []
        for _ in range(6):
            if (child := os.fork()) == 0:
                code = 1
                try:
                    SqlBroker(url).publish([outgoing(1)])
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
        broker = SqlBroker(url)
        assert broker.size(QUEUE).waiting == 6
        broker.close()

    def test_user_who_may_make_no_tables_is_told_and_works_with_those_of_another(
        self, url: str
    ) -> None:
        admin = SqlBroker(url)
        admin.check()
        database = urlsplit(url).path[1:]
        admin.database.run(lambda session: _grant(session, admin.database.is_postgresql, database))
        poor = SqlBroker(as_user(url, "fsdf_poor", "secret"))
        _drop_tables(admin)
        with pytest.raises(ServerRefused, match="fsdf sql schema"):
            poor.check()
        for sql in schema_text(url).split(";\n"):
            if sql.strip():
                admin.database.rows(sql, {})
        admin.database.run(lambda session: _grant(session, admin.database.is_postgresql, database))
        poor.publish([outgoing(1)])
        sub = poor.subscribe(QUEUE, lease=30)
        sub.wait(0.01)
        found = drain(sub)
        assert poor.size(QUEUE) == (0, 0, 1, 0)
        assert not sub.settle([(d.lease, ACK) for d in found])
        poor.close()
        admin.close()

    def test_tables_of_a_newer_version_and_of_others_are_refused(self, broker: SqlBroker) -> None:
        broker.check()
        run(broker, "UPDATE @version SET format = 9, least = 1")
        broker.close()
        again = SqlBroker(broker.url + "?connect_timeout=9")
        again.check()  # it says that we may go on
        run(again, "UPDATE @version SET least = 9")
        again.close()
        with pytest.raises(ServerRefused, match="upgrade fsdf"):
            SqlBroker(broker.url + "?connect_timeout=8").check()
        run(again, "UPDATE @version SET least = 1", "ALTER TABLE @message DROP COLUMN spot")
        with pytest.raises(ServerRefused, match="not as this version of fsdf makes it"):
            SqlBroker(broker.url + "?connect_timeout=7").check()

    def test_threads_find_at_the_same_time_that_somebody_has_dropped_them(
        self, broker: SqlBroker
    ) -> None:
        for _ in range(3):
            broker.check()
            _drop_tables(broker)
            _twelve_publish(broker)

    def test_tables_that_somebody_dropped_are_made_again(self, broker: SqlBroker) -> None:
        broker.publish([outgoing(1)])
        _drop_tables(broker)
        broker.publish([outgoing(2)])
        assert broker.size(QUEUE).waiting == 1


class TestTrouble:
    def test_wrong_credentials_and_databases_are_clear_and_hide_the_password(
        self, url: str
    ) -> None:
        for wrong in (as_user(url, "nobody", "s3cret"), url + "_not"):
            with pytest.raises(ServerRefused) as caught:
                SqlBroker(wrong).check()
            assert "s3cret" not in str(caught.value)
            assert "broker_url or SQLALCHEMY_URL" in str(caught.value)

    @pytest.mark.parametrize("kind", SERVERS)
    def test_a_server_that_hangs_or_is_not_there_is_told_within_the_connect_timeout(
        self, kind: str
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            broker = SqlBroker(f"{kind}://u:s3cret@127.0.0.1:{port}/d?connect_timeout=2")
            began = time.monotonic()
            with pytest.raises(Unavailable) as caught:
                broker.publish([outgoing(1)])
            assert time.monotonic() - began < 10
            assert "s3cret" not in str(caught.value)
        with pytest.raises(Unavailable, match="is it running"):
            broker.publish([outgoing(1)])

    def test_a_connection_that_is_cut_while_it_is_idle_is_not_used(
        self, broker: SqlBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sql_session, "STALE", 0.0)
        broker.publish([outgoing(1)])
        with broker.database._lock:
            [idle] = broker.database._idle
        other = SqlBroker(broker.url + "?pool_size=1")
        if broker.database.is_postgresql:
            run(other, f"SELECT pg_terminate_backend({idle.raw.info.backend_pid})")
        else:
            run(other, f"KILL {idle.raw.thread_id()}")
        until(idle.is_over)
        broker.publish([outgoing(2)])
        assert broker.size(QUEUE).waiting == 2
        other.close()

    def test_who_is_frozen_in_a_transaction_keeps_nothing_from_others(
        self, broker: SqlBroker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sql_session, "STALLED", 1)
        broker.publish([outgoing(1)])
        frozen, goes_on, errors = threading.Event(), threading.Event(), list[Exception]()

        def hold(session: Session) -> None:
            with session.transaction():
                session.rows(broker.database.sql("SELECT seq FROM @message FOR UPDATE"))
                frozen.set()
                goes_on.wait(BOUND)

        def freeze() -> None:
            try:
                broker.database.run(hold)
            except Unavailable as error:
                errors.append(error)

        thread = threading.Thread(target=freeze)
        thread.start()
        assert frozen.wait(BOUND)
        sub = broker.subscribe(QUEUE, lease=30)
        until(lambda: sub.fetch(1, MB))
        goes_on.set()
        thread.join()
        assert len(errors) == 1

    def test_who_is_frozen_while_it_reads_keeps_nothing_from_others(
        self, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sql_session, "UNREAD", 1)
        broker = SqlBroker(postgresql_url)
        broker.publish([Outgoing(QUEUE, "large", b"x" * (16 << 20))])
        frozen, sub = broker.database.connect(), broker.subscribe(QUEUE, lease=30)
        frozen.raw.pgconn.send_query(b"BEGIN; SELECT body FROM fsdf_message FOR UPDATE")
        frozen.raw.pgconn.flush()
        until(lambda: not run(broker, "SELECT seq FROM @message FOR UPDATE SKIP LOCKED"))
        until(lambda: sub.fetch(1, MB))
        frozen.close()
        broker.close()

    def test_a_publish_that_is_cut_off_is_unknown(self, broker: SqlBroker) -> None:
        """A trigger of somebody's holds it up meanwhile."""
        broker.check()
        other = SqlBroker(broker.url + "?pool_size=1")
        item = outgoing(1)
        errors: list[BaseException] = []

        def publish() -> None:
            try:
                broker.publish([item])
            except PublishError as error:
                errors.append(error)

        def hold(session: Session) -> None:
            postgresql = broker.database.is_postgresql
            table = broker.database.sql("@message")
            session.rows("BEGIN" if postgresql else "SET autocommit = 1")
            session.rows(f"LOCK TABLE {table} IN EXCLUSIVE MODE" if postgresql
                         else f"LOCK TABLES {table} READ")  # fmt: skip
            pusher = threading.Thread(target=publish)
            pusher.start()
            [pid] = _blocked(session, postgresql)
            session.rows(f"SELECT pg_terminate_backend({pid})" if postgresql else f"KILL {pid}")
            pusher.join(BOUND)
            session.rows("ROLLBACK" if postgresql else "UNLOCK TABLES")

        other.database.run(hold)
        [error] = errors
        assert isinstance(error, PublishError)
        assert list(error.unknown) == [item]
        assert list(error.rejected) == []
        other.close()

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("", "in broker_url or SQLALCHEMY_URL"),
            ("oracle://u:s3cret@h/d", "there are postgresql, mysql, mariadb and sqlite"),
            ("mysql://u:s3cret@h/d?schema=x", "only PostgreSQL"),
            ("postgresql://u:s3cret@h/d?pool_size=many", "pool_size='many'"),
            ("postgresql://u:s3cret@h/d?connect_timeout=0", "connect_timeout="),
            ("not a url s3cret@", "no URL of a database"),
        ],
    )
    def test_urls_that_name_no_database_are_refused(self, url: str, words: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            SqlBroker(url)
        assert words in str(caught.value)
        assert "s3cret" not in str(caught.value)

    def test_old_servers_are_refused_by_their_number(self) -> None:
        place = SqlBroker("mysql://h/d").database.place
        for version in ("5.7.44-log", "8.0.15", "10.6.22-MariaDB", "5.5.5-10.3.39-MariaDB-1"):
            with pytest.raises(ServerRefused, match="or later is needed"):
                sql_session._check_version(place, version)
        for version in ("8.0.16", "8.4.6", "9.1.0", "10.11.19-MariaDB-0+deb12u1", "11.8.2-MariaDB"):
            sql_session._check_version(place, version)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_a_queue_is_not_read_whole_though_its_table_has_no_statistics(
    postgresql_url: str, mode: str
) -> None:
    broker = with_tables(postgresql_url)
    for start in range(0, 20_000, 2_000):
        broker.publish([outgoing(n) for n in range(start, start + 2_000)])
    values = {"queue": QUEUE, "limit": 500, "room": MB, "token": 1, "lease": 30.0}

    def explain(session: Session) -> list[str]:
        session.rows(f"SET plan_cache_mode = {mode}")
        return [str(row[0]) for row in session.rows(f"EXPLAIN {sql}", values)]

    sql = broker.database.sql(_CLAIM)
    plan = "\n".join(broker.database.run(explain))
    broker.close()
    assert "Index Scan using fsdf_message_line" in plan
    assert "Seq Scan on fsdf_message" not in plan
    assert "Bitmap Heap Scan" not in plan


def test_sqlite_is_the_sqlite_brokers_file(tmp_path: object) -> None:
    path = f"{tmp_path}/q.sqlite"
    one, other = SqlBroker(f"sqlite:///{path}"), SqliteBroker(path)
    assert isinstance(one, SqliteBroker)
    one.publish([outgoing(1)])
    assert other.size(QUEUE).waiting == 1
    assert other.purge(QUEUE, Part.WAITING) == 1
    one.close()


def _blocked(session: Session, postgresql: bool) -> list[object]:
    """Return the connections that wait for a lock."""
    sql = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        if postgresql
        else "SELECT id FROM information_schema.processlist WHERE info LIKE '%%INSERT INTO fsdf_%%'"
        " AND id <> connection_id()"
    )
    until(lambda: session.rows(sql))
    return [row[0] for row in session.rows(sql)]


def _twelve_publish(broker: SqlBroker) -> None:
    """Publish by twelve threads at the same time; all of it is there then."""
    threads = [threading.Thread(target=broker.publish, args=([outgoing(n)],)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broker.size(QUEUE).waiting == 12


def _drop_tables(broker: SqlBroker) -> None:
    names = ("message", "lease", "dead", "version")
    names += ("waiter",) if broker.database.is_postgresql else ()
    run(broker, *(f"DROP TABLE @{name}" for name in names))


def _grant(session: Session, postgresql: bool, database: str) -> None:
    if not postgresql:
        session.rows("CREATE USER IF NOT EXISTS fsdf_poor IDENTIFIED BY 'secret'")
        session.rows(f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{database}`.* TO fsdf_poor")
        return
    if not session.rows("SELECT 1 FROM pg_roles WHERE rolname = 'fsdf_poor'"):
        session.rows("CREATE ROLE fsdf_poor LOGIN PASSWORD 'secret'")
    session.rows("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    session.rows("GRANT USAGE ON SCHEMA public TO fsdf_poor")
    session.rows("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO fsdf_poor")
