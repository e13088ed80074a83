"""The three stores of groups against the conformance suite, and what is one store's own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import until

from fsdf_engine.contracts import Claim, Group, Member, Outgoing
from fsdf_engine.stores.memory import MemoryStore
from fsdf_engine.stores.redis import RedisStore
from fsdf_engine.stores.sql import SqlStore
from fsdf_engine.stores.sqlite import SqliteStore
from fsdf_engine.testing.groups import MINE, GroupConformance, ended, group, ids


class TestMemory(GroupConformance):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestSqlite(GroupConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> SqliteStore:
        return SqliteStore(str(tmp_path / "results.sqlite"))


class TestPostgresql(GroupConformance):
    @pytest.fixture
    def store(self, postgresql_url: str) -> Iterator[SqlStore]:
        made = SqlStore(postgresql_url)
        yield made
        made.close()


class TestMysql(GroupConformance):
    @pytest.fixture
    def store(self, mysql_url: str) -> Iterator[SqlStore]:
        made = SqlStore(mysql_url)
        yield made
        made.close()


class TestRedis(GroupConformance):
    @pytest.fixture
    def store(self, redis_url: str) -> RedisStore:
        return RedisStore(redis_url)


class TestRedisCluster(GroupConformance):
    @pytest.fixture
    def store(self, cluster_url: str) -> RedisStore:
        return RedisStore(cluster_url)


def test_redis_is_asked_once_for_a_batch_and_keeps_nothing_for_ever(redis_url: str) -> None:
    import redis

    store = RedisStore(redis_url)
    groups = store.groups()
    groups.open([group(f"g{n}", 2) for n in range(100)], MINE)
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        done = groups.add([m for n in range(100) for m in ended(0, 1, of=f"g{n}")], MINE)
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1
        assert len(done) == 100
        assert {client.pttl(key) > 0 for key in client.keys("*")} == {True}
        groups.close(ids(done), MINE)
        assert client.keys("*:members") == [] == client.keys("fsdf:groups:*")
        assert client.hgetall("fsdf:group:g0").keys() & {b"messages", b"closed"} == {b"closed"}
    store.close()


def test_sqlite_keeps_nothing_of_groups_that_are_over(tmp_path: Path) -> None:
    path = str(tmp_path / "f.sqlite")
    store = SqliteStore(path)
    groups = store.groups()
    groups.open([group("a", 1), group("b", 1, 0.01), group("c", 1)], MINE)
    groups.add(ended(0, of="a") + ended(0, of="b"), MINE)
    groups.close(["a"], MINE)
    with sqlite3.connect(path) as db:

        def left() -> list[tuple[str]]:
            groups.claim(MINE)
            return db.execute("SELECT barrier FROM barrier_member").fetchall()

        until(lambda: left() == [])
        assert db.execute("SELECT id FROM barrier ORDER BY id").fetchall() == [("a",), ("c",)]
    store.close()


def test_a_store_without_groups_says_so() -> None:
    from doubles import Results

    from fsdf_engine.contracts import ResultStore
    from fsdf_engine.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match="Results keeps no groups; use a store that does"):
        ResultStore.groups(Results())  # type: ignore[arg-type]


def test_values_of_many_megabytes_pass(redis_url: str, tmp_path: Path) -> None:
    for store in (MemoryStore(), SqliteStore(str(tmp_path / "f")), RedisStore(redis_url)):
        groups = store.groups()
        groups.open([Group("g", Outgoing("q", "b", b"x" * (1 << 20)), 5)], MINE)
        large = b"v" * (12 << 20)
        done = groups.add([Member("g", str(n), large, place=n) for n in range(5)], MINE)
        assert [m.body == large for m in done[0].members] == [True] * 5
        assert done[0].body.body == b"x" * (1 << 20)
        groups.close(["g"], Claim("p", "me", 1.0))
        store.close()


def test_a_message_that_the_server_refuses_is_a_dead_letter_beside_the_others(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redis

    from fsdf_engine import TaskFailed, task_deco

    monkeypatch.setenv("FSDF_REDIS_URL", redis_url)
    options = {"broker_kind": "redis_ack"}
    member = task_deco("members", joins_groups=True, **options)(lambda n: n)
    taken, fine = (
        task_deco(queue, is_using_rpc_mode=True, **options)(lambda values: values)
        for queue in ("taken", "fine")
    )
    with redis.Redis.from_url(redis_url) as client:
        client.set("taken", "another program's")
        results = [member.push_group([(n,) for n in range(3)], then) for then in (taken, fine) * 5]
        member.consume()
        fine.consume()
        assert [result.get(20.0) for result in results[1::2]] == [[0, 1, 2]] * 5
        for result in results[::2]:
            with pytest.raises(TaskFailed, match="the broker refused it"):
                result.get(20.0)
        assert member.join(20.0)
        client.delete("taken")
    assert len(taken.dead_letters()) == 5
    taken.consume()
    assert taken.replay() == 5
    until(lambda: sum(taken.size()) == 0)
