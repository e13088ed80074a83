"""The three result stores against the conformance suite, and their outages."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import RedisServer, until

from fsdf_engine.brokers import redis_subscriber, sqlite_file, wakeup
from fsdf_engine.brokers.redis_connection import Connection
from fsdf_engine.brokers.sqlite import SqliteBroker
from fsdf_engine.contracts import Record
from fsdf_engine.errors import ArgumentError, ServerRefused, Unavailable
from fsdf_engine.stores import redis as redis_module
from fsdf_engine.stores import sqlite as sqlite_module
from fsdf_engine.stores.memory import MemoryStore
from fsdf_engine.stores.redis import RedisStore
from fsdf_engine.stores.sql import SqlStore
from fsdf_engine.stores.sqlite import SqliteStore
from fsdf_engine.testing.stores import BOUND, Received, StoreConformance, connected, nothing

WRITE = """
import sys
from fsdf_engine.brokers import redis_subscriber
from fsdf_engine.contracts import Record
from fsdf_engine.registry import stores
stores.load(sys.argv[1])(sys.argv[2]).write([Record("a", b"from afar", reply=sys.argv[3])])
"""


class TestMemory(StoreConformance):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestSqlite(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SqliteStore:
        return SqliteStore(str(tmp_path / "results.sqlite"))


class TestRedis(StoreConformance):
    @pytest.fixture
    def store(self, redis_url: str) -> RedisStore:
        return RedisStore(redis_url)


class TestRedisWithoutScript(StoreConformance):
    """As many records are written: however few they are."""

    @pytest.fixture
    def store(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> RedisStore:
        monkeypatch.setattr(redis_module, "_FEW", 0)
        return RedisStore(redis_url)


class TestRedisCluster(StoreConformance):
    @pytest.fixture
    def store(self, cluster_url: str) -> RedisStore:
        return RedisStore(cluster_url)


class TestPostgresql(StoreConformance):
    @pytest.fixture
    def store(self, postgresql_url: str) -> Iterator[SqlStore]:
        made = SqlStore(postgresql_url)
        yield made
        made.close()


class TestMysql(StoreConformance):
    @pytest.fixture
    def store(self, mysql_url: str) -> Iterator[SqlStore]:
        made = SqlStore(mysql_url)
        yield made
        made.close()


class TestSqliteOnly:
    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        return str(tmp_path / "both.sqlite")

    @pytest.fixture
    def store(self, path: str) -> Iterator[SqliteStore]:
        made = SqliteStore(path)
        yield made
        made.close()

    def test_a_broker_and_a_store_share_the_file_and_its_connections(
        self, store: SqliteStore, path: str
    ) -> None:
        assert SqliteBroker(path).file is store.file

    def test_a_result_of_another_process_arrives(self, store: SqliteStore, path: str) -> None:
        received = Received()
        inbox = store.inbox(received, nothing)
        subprocess.run([sys.executable, "-c", WRITE, "sqlite", path, inbox.address], check=True)
        assert received.wait_for("a") == {"a": b"from afar"}
        inbox.close()

    def test_a_sleeping_inbox_finds_what_did_not_fit(self, store: SqliteStore) -> None:
        """Its thread is held in the first delivery, until the socket has no room for more."""
        ids = [f"id{n}" for n in range(300)]
        go, received = threading.Event(), Received()

        def deliver(id: str, body: bytes) -> None:
            assert go.wait(BOUND)
            received(id, body)

        inbox = store.inbox(deliver, lambda: ids)
        for id in ids:
            store.write([Record(id, id.encode() * 500, reply=inbox.address)])
        go.set()
        found = received.wait_for(*ids)
        assert found == {id: id.encode() * 500 for id in ids}
        inbox.close()

    def test_where_folders_hold_no_sockets_results_arrive_too(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:

        monkeypatch.setattr(wakeup, "_short", lambda folder: None)
        ids = [f"id{n}" for n in range(50)]
        store, received = SqliteStore(path), Received()
        inbox = store.inbox(received, lambda: ids)
        for id in ids:
            store.write([Record(id, b"{}", reply=inbox.address)])
        received.wait_for(*ids)
        inbox.close()
        store.close()

    def test_a_file_locked_meanwhile_delays_a_result_and_loses_none(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_module, "AGAIN", 0.01)
        failures = threading.Semaphore(0)
        store, received = SqliteStore(path), Received()
        inbox = store.inbox(received, lambda: ["large"])
        working = store.read
        calls = 0

        def stored(*args: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls <= 2:
                failures.release()
                raise Unavailable("locked")
            return working(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(store, "read", stored)
        store.write([Record("large", b"x" * 100_000, reply=inbox.address)])
        assert failures.acquire(timeout=BOUND)
        assert len(received.wait_for("large")["large"]) == 100_000
        inbox.close()
        store.close()

    def test_a_locked_file_is_unavailable(self, path: str) -> None:
        store = SqliteStore(path, patience=0.1)
        store.write([])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked"):
            store.write([Record("a", b"1")])
        other.execute("ROLLBACK")
        other.close()
        store.write([Record("a", b"1")])
        assert dict(store.read(["a"])) == {"a": b"1"}
        store.close()

    def test_results_of_the_format_before_are_kept_and_fenced(self, path: str) -> None:
        SqliteStore(path).write([Record("a", b"old", deliveries=3)])
        with sqlite3.connect(path) as db:
            db.execute("ALTER TABLE result DROP COLUMN sends")
            db.execute("ALTER TABLE result DROP COLUMN origin")
            db.execute("ALTER TABLE result DROP COLUMN attempt")
            db.execute("PRAGMA application_id = 0")
            db.execute("PRAGMA user_version = 1")
        store = SqliteStore(path)
        store.file.close()
        store.write([Record("a", b"stale", deliveries=2, origin="o")])
        assert dict(store.read(["a"])) == {"a": b"old"}
        store.write([Record("a", b"new", sends=1, origin="o")])
        assert dict(store.read(["a"])) == {"a": b"new"}
        store.close()

    def test_expired_results_go_without_a_new_one_and_the_file_shrinks(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_module, "TIDY", 0.0)
        store = SqliteStore(path)
        store.write([Record(str(n), b"x" * 10_000, expires=0.3) for n in range(2000)])
        with store.file.read() as db:
            [before] = db.execute("PRAGMA page_count").fetchone()

        def small() -> bool:
            store.read(["any"])
            with store.file.read() as db:
                [pages] = db.execute("PRAGMA page_count").fetchone()
                [rows] = db.execute("SELECT count(*) FROM result").fetchone()
            return rows == 0 and pages < before / 4

        until(small)
        store.close()

    def test_a_file_that_another_program_locks_is_read_without_being_tidied(
        self, path: str
    ) -> None:
        store = SqliteStore(path, patience=0.05)
        store.write([Record("a", b"1"), Record("b", b"2", expires=0.0)])
        store._tidied = 0.0
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert dict(store.read(["a"])) == {"a": b"1"}
        assert store._tidied > 0.0  # it waited once, and not for every reader
        other.execute("ROLLBACK")
        other.close()
        store.close()

    def test_an_idle_consumer_of_the_file_sweeps_what_has_expired(
        self, store: SqliteStore, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_file, "SWEEP", 0.0)
        store.write([Record(str(n), b"1", expires=0.2) for n in range(3000)])

        def none() -> bool:
            with store.file.read() as db:
                return db.execute("SELECT count(*) FROM result").fetchone() == (0,)

        sub = SqliteBroker(path).subscribe("q", lease=5.0)
        swept = threading.Event()

        def idle() -> None:
            while not swept.is_set():
                sub.wait(0.05)

        waiting = threading.Thread(target=idle)
        waiting.start()
        try:
            until(none)
        finally:
            swept.set()
            waiting.join()
        sub.close()

    def test_expired_rows_are_removed_from_the_file(self, store: SqliteStore) -> None:
        store.write([Record(str(n), b"1", expires=0.0) for n in range(500)])
        for _ in range(10):
            store.write([Record("x", b"1")])
        with store.file.read() as db:
            assert db.execute("SELECT count(*) FROM result").fetchone() == (1,)

    def test_watches_leave_nothing_behind(self, store: SqliteStore) -> None:
        received = Received()
        inbox = store.inbox(received, nothing)
        store.write([Record("stored", b"1")])
        inbox.watch(["stored", "comes", "never comes"])
        store.write([Record("comes", b"2")])
        received.wait_for("stored", "comes")
        inbox.close()
        with store.file.read() as db:
            assert db.execute("SELECT count(*) FROM watch").fetchone() == (0,)


class TestRedisOnly:
    @pytest.fixture
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_subscriber, "BACKOFF", (0.01, 0.05))

    def test_a_result_of_another_process_arrives(self, redis_url: str) -> None:
        store, received = RedisStore(redis_url), Received()
        inbox = store.inbox(received, nothing)
        connected(store, inbox, received)
        subprocess.run([sys.executable, "-c", WRITE, "redis", redis_url, inbox.address], check=True)
        assert received.wait_for("a") == {"a": b"from afar"}
        inbox.close()
        store.close()

    def test_results_live_under_their_key_and_expire_by_the_server(self, redis_url: str) -> None:
        import redis

        store = RedisStore(redis_url)
        store.write([Record("a", b'{"x":1}', deliveries=3, expires=50.0)])
        with redis.Redis.from_url(redis_url) as client:
            assert client.get("fsdf:result:a") == b'3F{"x":1}'
            assert 40_000 < client.pttl("fsdf:result:a") <= 50_000
        store.close()

    def test_records_of_any_age_have_a_head_of_their_own(self, redis_url: str) -> None:
        import redis

        store = RedisStore(redis_url)
        with redis.Redis.from_url(redis_url) as client:
            client.set("fsdf:result:old", b'3F{"x":1}')
            store.write([Record("new", b'{"x":2}', sends=1, deliveries=2, origin="abc")])
            assert client.get("fsdf:result:new") == b'1.2Fabc\n{"x":2}'
        assert dict(store.read(["old", "new"])) == {"old": b'{"x":1}', "new": b'{"x":2}'}
        store.write([Record("old", b"stale", deliveries=2, origin="abc")])
        assert dict(store.read(["old"])) == {"old": b'{"x":1}'}
        store.write([Record("old", b"later", sends=1, origin="abc")])
        assert dict(store.read(["old"])) == {"old": b"later"}
        store.close()

    @pytest.mark.parametrize("reply", ["secret", "fsdf:inbox:", "fsdf:inbox:" + "0" * 33])
    def test_no_channel_but_an_inbox_is_published_on(self, redis_url: str, reply: str) -> None:
        import redis

        store, inbox = RedisStore(redis_url), "fsdf:inbox:" + "0" * 32
        with redis.Redis.from_url(redis_url) as client, client.pubsub() as pubsub:
            pubsub.subscribe(reply, inbox)
            assert [pubsub.get_message(timeout=BOUND)["type"] for _ in "12"] == ["subscribe"] * 2
            store.write([Record("a", b"1", reply=reply), Record("b", b"2", reply=inbox)])
            assert pubsub.get_message(timeout=BOUND)["data"] == b"1\nb2"
        store.close()

    def test_many_records_live_under_their_keys_and_expire_by_the_server(
        self, redis_url: str
    ) -> None:
        import redis

        store, ids = RedisStore(redis_url), [f"漢{n}" for n in range(100)]
        lives = (50.0, 40_000, 50_000), (float("inf"), -2, -1)
        with redis.Redis.from_url(redis_url) as client:
            for life, least, most in lives:
                store.write([Record(id, b'{"x":1}', 3, expires=life, attempt=1) for id in ids])
                assert client.mget([f"fsdf:result:{id}" for id in ids]) == [b'03F{"x":1}'] * 100
                assert all(least < client.pttl(f"fsdf:result:{id}") <= most for id in ids)
                store.forget(ids)
        store.close()

    @pytest.mark.parametrize("channels", ["99", "99 many", "99 hidden", "?9"])
    def test_who_listens_to_keys_is_told_of_many_ends(
        self, own_redis: Callable[..., RedisServer], channels: str
    ) -> None:
        """Also beside many other channels, and where their number is not to be known."""
        import redis

        server = own_redis()
        store, ids = RedisStore(server.url), [f"{n}" for n in range(100)]
        with redis.Redis.from_url(server.url) as client, client.pubsub() as pubsub:
            if "hidden" in channels:
                client.acl_setuser("default", enabled=True, commands=["-info"])
            if "many" in channels:
                pubsub.subscribe(*(f"other{n}" for n in range(200)))
                assert all(pubsub.get_message(timeout=BOUND) for _ in range(200))
            hear = pubsub.psubscribe if "?" in channels else pubsub.subscribe
            hear(f"fsdf:result:{channels[:2]}")
            assert pubsub.get_message(timeout=BOUND)
            store.write(
                [Record(id, id.encode(), final=id not in ("09", "9")) for id in ["09", *ids]]
            )
            ends = range(1, 10) if "?" in channels else (9,)
            heard = [pubsub.get_message(timeout=BOUND)["data"] for _ in ends]
            assert heard == [b"0F%d9" % n for n in ends]
        store.close()

    def test_of_many_ends_is_told_who_listens_and_nobody_else(
        self, own_redis: Callable[..., RedisServer]
    ) -> None:
        import redis

        server = own_redis()
        store, received = RedisStore(server.url), Received()
        inbox, gone = store.inbox(received, nothing), store.inbox(Received(), nothing)
        connected(store, inbox, received)
        gone.close()
        with redis.Redis.from_url(server.url) as client:

            def published() -> int:
                commands = client.info("commandstats")
                return commands["cmdstat_publish"]["calls"] if "cmdstat_publish" in commands else 0

            until(lambda: client.pubsub_numsub(gone.address)[0][1] == 0)
            before = published()
            for reply in (gone.address, "", "no inbox"):
                store.write([Record(f"{n} {reply}", b"1", reply=reply) for n in range(100)])
            assert published() == before
            both = inbox.address, gone.address
            store.write([Record(f"{n}", b"1", reply=both[n % 2]) for n in range(100)])
            received.wait_for(*[f"{n}" for n in range(0, 100, 2)])
            assert published() == before + 1
        inbox.close()
        store.close()

    def test_what_was_stored_but_not_told_is_told_when_it_is_repeated(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, received, calls = RedisStore(redis_url), Received(), []
        inbox, line = store.inbox(received, nothing), store._shards.connections.to()
        connected(store, inbox, received)
        records = [Record(f"{n}", b"1", reply=inbox.address, origin="o") for n in range(100)]

        def call(*commands: object, **options: object) -> list[object]:
            calls.append(commands)
            if len(calls) == 2:
                raise Unavailable("the connection is lost")
            return Connection.call(line, *commands, **options)

        monkeypatch.setattr(line, "call", call)
        with pytest.raises(Unavailable):
            store.write(records)
        assert len(store.read([r.id for r in records])) == 100
        assert not received.bodies
        store.write(records)
        assert len(received.wait_for(*[r.id for r in records])) == 100
        inbox.close()
        store.close()

    def test_many_ends_reach_an_inbox_in_one_message(self, redis_url: str) -> None:
        import redis

        store, reply = RedisStore(redis_url), "fsdf:inbox:" + "0" * 12 + "8" + "0" * 19
        with redis.Redis.from_url(redis_url) as client, client.pubsub() as pubsub:
            pubsub.subscribe(reply)
            assert pubsub.get_message(timeout=BOUND)["type"] == "subscribe"
            some = [Record(id, b"1\n", reply=reply) for id in ("a", "漢")]
            store.write([*some, Record("p", b"", final=False, reply=reply)])
            said = pubsub.get_message(timeout=BOUND)["data"]
            assert said == b"\0\0\0\1\0\0\0\2a1\n\0\0\0\3\0\0\0\2\xe6\xbc\xa21\n"
        store.close()

    def test_large_ends_leave_as_several_messages(self, redis_url: str) -> None:
        import redis

        store, reply = RedisStore(redis_url), "fsdf:inbox:" + "0" * 12 + "8" + "0" * 19
        with redis.Redis.from_url(redis_url) as client, client.pubsub() as pubsub:
            pubsub.subscribe(reply)
            assert pubsub.get_message(timeout=BOUND)["type"] == "subscribe"
            store.write([Record(str(n), b"x" * (1 << 19), reply=reply) for n in range(9)])
            said = [len(pubsub.get_message(timeout=BOUND)["data"]) for _ in range(5)]
            assert said == [n * (9 + (1 << 19)) for n in (2, 2, 2, 2, 1)]
        store.close()

    def test_an_end_is_published_on_its_key(self, redis_url: str) -> None:
        import redis

        store = RedisStore(redis_url)
        with redis.Redis.from_url(redis_url) as client, client.pubsub() as pubsub:
            pubsub.subscribe("fsdf:result:a")
            assert pubsub.get_message(timeout=BOUND)["type"] == "subscribe"
            store.write([Record("a", b"half", final=False), Record("a", b"{}", origin="o")])
            assert pubsub.get_message(timeout=BOUND)["data"] == b"0.0Fo\n{}"
            assert client.get("fsdf:result:a") == b"0.0Fo\n{}"
        store.close()

    def test_an_id_that_cannot_be_a_key_is_refused_and_harms_no_other(self, redis_url: str) -> None:
        store, received = RedisStore(redis_url), Received()
        inbox = store.inbox(received, nothing)
        with pytest.raises(ArgumentError, match="key of Redis"):
            inbox.watch(["\ud800"])
        inbox.watch(["a"])
        store.write([Record("a", b"fine")])
        assert received.wait_for("a") == {"a": b"fine"}
        inbox.close()
        store.close()

    def test_a_write_is_one_round_trip(self, redis_url: str) -> None:
        import redis

        store = RedisStore(redis_url)
        store.write([Record("warm", b"")])
        with redis.Redis.from_url(redis_url) as client:
            before = client.info("stats")["total_commands_processed"]
            store.write([Record(str(n), b"{}") for n in range(400)])
            commands = client.info("commandstats")["cmdstat_evalsha"]["calls"]
            assert client.info("stats")["total_commands_processed"] - before < 1300
            store.write([Record(str(n), b"{}") for n in range(400)])
            assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == commands + 1
        store.close()

    def test_a_killed_connection_of_the_inbox_loses_nothing(
        self, redis_url: str, quick: None
    ) -> None:
        import redis

        store, received = RedisStore(redis_url), Received()
        inbox = store.inbox(received, lambda: ["b"])
        connected(store, inbox, received)
        inbox.watch(["c"])
        with redis.Redis.from_url(redis_url) as client:
            for round in ("x", "y"):
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                store.write([Record("b", b"B", reply=inbox.address), Record("c", b"C")])
                store.write([Record(round, b"", reply=inbox.address)])
                assert received.wait_for("b", "c")
                received.bodies.clear()
                inbox.watch(["c"])
                received.wait_for("c")
        inbox.close()
        store.close()

    def test_a_restarted_server_is_found_again(
        self, own_redis: Callable[..., RedisServer], quick: None
    ) -> None:
        server = own_redis(aof=True)
        store, received = RedisStore(server.url), Received()
        inbox = store.inbox(received, lambda: ["pending"])
        connected(store, inbox, received)
        inbox.watch(["watched"])
        server.stop()
        with pytest.raises(Unavailable):
            store.write([Record("a", b"1")])
        with pytest.raises(Unavailable):
            store.read(["a"])
        inbox.watch(["asked meanwhile"])
        server.start()
        other = RedisStore(server.url)
        for id in ("watched", "asked meanwhile"):
            other.write([Record(id, id.encode())])
        other.write([Record("pending", b"p", reply=inbox.address)])
        found = received.wait_for("watched", "asked meanwhile", "pending")
        assert found["asked meanwhile"] == b"asked meanwhile"
        inbox.close()
        other.close()
        store.close()

    def test_an_inbox_without_a_server_closes_at_once(
        self, own_redis: Callable[..., RedisServer]
    ) -> None:
        server = own_redis()
        store = RedisStore(server.url)
        inbox = store.inbox(Received(), nothing)
        server.kill()
        inbox.close()
        inbox.close()

    def test_a_wrong_password_is_refused(self, own_redis: Callable[..., RedisServer]) -> None:
        server = own_redis(password="secret")
        store = RedisStore(server.url.replace("secret", "wrong"))
        with pytest.raises(ServerRefused) as caught:
            store.write([Record("a", b"1")])
        assert "wrong@" not in str(caught.value)
