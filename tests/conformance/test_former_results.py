"""Results beside workers of the version before, which knew no attempts: both write, both read."""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsdf_engine.contracts import Mark, Record
from fsdf_engine.stores.redis import RedisStore
from fsdf_engine.stores.sqlite import SqliteStore
from fsdf_engine.testing.inboxes import BOUND, Received, connected, nothing

# What the version before stored a result with.
INSERT = """
INSERT INTO result (id, sends, deliveries, final, expires, body, origin)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET sends = excluded.sends, deliveries = excluded.deliveries,
    final = excluded.final, expires = excluded.expires, body = excluded.body,
    origin = excluded.origin
"""
# Its script. ARGV: id, sends, deliveries, F or P, milliseconds, body, reply, origin.
WRITE = """
local stored = 0
for i, key in ipairs(KEYS) do
    local id, sends, deliveries, kind, life, body, reply, origin = unpack(ARGV, i * 8 - 7, i * 8)
    local kept = redis.call('GETRANGE', key, 0, 127)
    local new, ours = true, true
    if kept ~= '' then
        local s, d, k, o = string.match(kept, '^(%d+)%.(%d+)([FP])([^\\n]*)\\n')
        if not s then s, o, d, k = 0, '', string.match(kept, '^(%d+)([FP])') end
        ours = not k or o == '' or o == origin
        new = not k or k == 'P'
        if ours and k then
            local before = tonumber(s) - tonumber(sends)
            new = (before < 0 or before == 0 and tonumber(d) <= tonumber(deliveries))
                and (k == 'P' or kind == 'F')
        end
    end
    local notice = #id .. '\\n' .. id .. body
    if new then
        local head = sends .. '.' .. deliveries .. kind .. origin .. '\\n'
        if sends == '0' and origin == '' then head = deliveries .. kind end
        redis.call('SET', key, head .. body, 'PX', life)
        stored = stored + 1
        if kind == 'F' then redis.call('PUBLISH', key, notice) end
    end
    if kind == 'F' and reply ~= '' and (new or not ours) then
        redis.call('PUBLISH', reply, notice)
    end
end
return stored
"""
KEPT = re.compile(rb"\d+\.\d+([FP])[^\n]*\n|\d+([FP])")


class TestRedis:
    @pytest.fixture
    def store(self, redis_url: str) -> Iterator[RedisStore]:
        made = RedisStore(redis_url)
        yield made
        made.close()

    @pytest.fixture
    def client(self, redis_url: str) -> Iterator[Any]:
        import redis

        with redis.Redis.from_url(redis_url) as client:
            yield client

    @pytest.mark.parametrize("origin", ["", "abc"])
    @pytest.mark.parametrize("sends", [0, 2])
    def test_former_workers_read_and_fence_what_is_written_now(
        self, store: RedisStore, client: Any, origin: str, sends: int
    ) -> None:
        def former(deliveries: int, body: str) -> None:
            said = "a", sends, deliveries, "F", 60_000, body, "", origin
            client.eval(WRITE, 1, "fsdf:result:a", *said)

        half = Record("a", b"0F half", 10, False, origin=origin, sends=sends, attempt=3)
        store.write([half])
        value = client.get("fsdf:result:a")
        kept = KEPT.match(value)
        assert kept and b"P" in (kept[1], kept[2]) and value[kept.end() :] == b"0F half"
        former(9, "stale")
        assert client.get("fsdf:result:a") == value
        former(10, "end")
        assert dict(store.read(["a"], final=True)) == {"a": b"end"}
        store.write([half, Record("a", b"now", 11, origin=origin, sends=sends, attempt=1)])
        former(10, "stale")
        assert dict(store.read(["a"])) == {"a": b"now"}

    def test_results_that_former_workers_tell_of_arrive(
        self, store: RedisStore, client: Any
    ) -> None:
        received = Received()
        inbox = store.inbox(received, nothing)
        connected(store, inbox, received)
        inbox.watch(["b"])
        for id, reply in (("a", inbox.address), ("b", "")):
            client.eval(WRITE, 1, f"fsdf:result:{id}", id, 0, 0, "F", 60_000, "{}\n", reply, "o")
        assert received.wait_for("a", "b") == {"a": b"{}\n", "b": b"{}\n"}
        inbox.close()

    def test_former_inboxes_are_told_one_by_one(self, store: RedisStore, client: Any) -> None:
        reply = f"fsdf:inbox:{uuid.uuid4().hex}"
        with client.pubsub() as pubsub:
            pubsub.subscribe(reply)
            assert pubsub.get_message(timeout=BOUND)["type"] == "subscribe"
            store.write([Record(id, id.encode() * 2, reply=reply) for id in ("a", "b c")])
            told = [pubsub.get_message(timeout=BOUND)["data"] for _ in "12"]
            assert told == [b"1\naaa", b"3\nb cb cb c"]

    def test_first_attempts_are_written_as_before(self, store: RedisStore, client: Any) -> None:
        store.write([Record("a", b"x", 3), Record("b", b"x", 3, origin="o", sends=1)])
        store.write([Record("c", b"x", 3, attempt=2), Record("d", b"x", attempt=1, origin="o")])
        assert client.mget([f"fsdf:result:{id}" for id in "abcd"]) == [
            b"3Fx", b"1.3Fo\nx", b"003Fx", b"0.00Fo\nx"
        ]  # fmt: skip


class TestSqlite:
    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        return str(tmp_path / "results.sqlite")

    def test_a_file_is_brought_up_to_date_beside_a_former_worker(self, path: str) -> None:
        old = SqliteStore(path)
        old.write([Record("a", b"old", deliveries=3, sends=1, origin="o")])
        old.close()
        with sqlite3.connect(path) as db:
            db.execute("ALTER TABLE result DROP COLUMN attempt")
            db.execute("DROP TABLE mark")
            db.execute("PRAGMA application_id = 0")
        db.close()
        former = sqlite3.connect(path, isolation_level=None)  # a worker that runs all the time
        store = SqliteStore(path)
        assert list(store.marks().put([Mark("m")])) == ["m"]
        former.execute(INSERT, ("b", 0, 0, 1, 9e9, b"of a former worker", "o"))
        store.write([Record("a", b"stale", deliveries=2, sends=1, origin="o")])
        assert dict(store.read(["a", "b"])) == {"a": b"old", "b": b"of a former worker"}
        assert former.execute("PRAGMA user_version").fetchone() == (2,)
        former.close()
        store.close()
