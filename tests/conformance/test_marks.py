"""Marks in each store: where they lie, and that nothing of them stays behind."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdf_engine.brokers import sqlite_file
from fsdf_engine.contracts import Mark
from fsdf_engine.stores.redis import RedisStore
from fsdf_engine.stores.sqlite import SqliteStore
from fsdf_engine.testing.marks import eventually


class TestRedis:
    @pytest.fixture
    def store(self, redis_url: str) -> Iterator[RedisStore]:
        made = RedisStore(redis_url)
        yield made
        made.close()

    def test_the_server_ends_marks_but_the_watched_ones(
        self, store: RedisStore, redis_url: str
    ) -> None:
        import redis

        store.marks().put([Mark("a", b"1", 50.0), Mark("w", b"2", 50.0, watched=True)])
        with redis.Redis.from_url(redis_url) as client:
            assert client.get("fsdf:mark:a") == b"1"
            assert 40_000 < client.pttl("fsdf:mark:a") <= 50_000
            assert client.ttl("fsdf:mark:w") == -1
            [(name, end)] = client.zrange("fsdf:marks:watched", 0, -1, withscores=True)
            assert name == b"w" and 40.0 < end / 1000 - client.time()[0] < 52.0
            store.marks().delete(["a", "w"])
            assert client.dbsize() == 0

    def test_a_watched_mark_that_was_evicted_is_forgotten(
        self, store: RedisStore, redis_url: str
    ) -> None:
        import redis

        store.marks().put([Mark("w", b"2", 0.001, watched=True)])
        with redis.Redis.from_url(redis_url) as client:
            client.delete("fsdf:mark:w")
            eventually(lambda: not store.marks().lapsed(9.0) and client.dbsize() == 0)


class TestSqlite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        return str(tmp_path / "marks.sqlite")

    @pytest.fixture
    def store(self, path: str) -> Iterator[SqliteStore]:
        made = SqliteStore(path)
        yield made
        made.close()

    def test_expired_marks_are_removed_from_the_file(self, store: SqliteStore) -> None:
        store.marks().put([Mark(str(n), life=0.0) for n in range(500)])
        store.marks().put([Mark("w", life=0.0, watched=True)])
        for _ in range(10):
            store.marks().put([Mark("x")])
        with store.file.read() as db:
            assert set(db.execute("SELECT name FROM mark")) == {("w",), ("x",)}

    def test_expired_marks_go_without_a_new_one(
        self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_file, "SWEEP", 0.0)
        store.marks().put([Mark(str(n), life=0.001) for n in range(500)])
        eventually(lambda: not store.file.shrink())
        with store.file.read() as db:
            assert db.execute("SELECT count(*) FROM mark").fetchone() == (0,)

    def test_a_look_for_lapsed_ones_does_not_wait_for_a_writer(
        self, path: str, store: SqliteStore
    ) -> None:
        store.marks().put([Mark("w", watched=True)])
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            assert not store.marks().lapsed(9.0)
        other.close()
