"""What another program finds in Redis of results in its layout, and what it may leave there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import until

from fsdf_engine.contracts import Layout, Record
from fsdf_engine.engine import Engine
from fsdf_engine.options import TaskOptions
from fsdf_engine.stores import redis as redis_module
from fsdf_engine.stores.redis import RedisStore
from fsdf_engine.testing.inboxes import BOUND, Received, connected, nothing
from fsdf_engine.testing.layouts import TOY, record, toy_ended


@pytest.fixture(params=["by a script", "by plain commands"])
def store(
    redis_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RedisStore]:
    monkeypatch.setattr(redis_module, "_FEW", 0 if request.param == "by plain commands" else 32)
    made = RedisStore(redis_url)
    made.add_layout(TOY)
    yield made
    made.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    import redis

    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_the_very_bytes_lie_under_the_key_and_are_published_there(
    store: RedisStore, client: Any
) -> None:
    with client.pubsub() as pubsub:
        pubsub.subscribe("toy-meta-a")
        assert pubsub.get_message(timeout=BOUND)["type"] == "subscribe"
        for body in (b"..", b"END \xff\n"):
            made = record(body)
            made.expires = 50.0
            store.write([made])
            assert client.get("toy-meta-a") == body
            assert pubsub.get_message(timeout=BOUND)["data"] == body
    lives = [client.pttl(key) for key in ("toy-meta-a", "fsdf:fence:toy-meta-a")]
    assert all(40_000 < life <= 50_000 for life in lives)
    store.forget(["a"], layout="toy")
    assert client.dbsize() == 0


def test_a_record_for_ever_has_no_end_there(store: RedisStore, client: Any) -> None:
    store.write([Record("a", b"END", expires=float("inf"), layout="toy")])
    assert client.ttl("toy-meta-a") == client.ttl("fsdf:fence:toy-meta-a") == -1


def test_what_the_other_program_writes_is_read_and_told(store: RedisStore, client: Any) -> None:
    received = Received()
    inbox = store.inbox(received, nothing, layout="toy")
    connected(store, inbox, received, "toy")
    inbox.watch(["a", "b"])
    client.set("toy-meta-b", "END b")
    connected(store, inbox, received, "toy")  # listens to both by now
    for body in ("..", "no toy", "END a"):
        client.set("toy-meta-a", body)
        client.publish("toy-meta-a", body)
    client.publish("toy-meta-b", "END b")
    assert received.wait_for("a", "b") == {"a": b"END a", "b": b"END b"}
    client.set("toy-meta-c", "no toy")
    assert set(store.read(["a", "b", "c"], layout="toy")) == {"a", "b", "c"}
    assert set(store.read(["a", "b", "c"], layout="toy", final=True)) == {"a", "b"}
    store.write([record(b"END ours")])
    assert client.get("toy-meta-a") == b"END ours"
    inbox.close()


def test_what_the_other_program_deletes_fences_nothing(store: RedisStore, client: Any) -> None:
    store.write([record(b"END 5", 5)])
    client.delete("toy-meta-a")
    store.write([record(b"END 1", 1)])
    assert client.get("toy-meta-a") == b"END 1"
    store.write([record(b"END 0", 0)])
    assert client.get("toy-meta-a") == b"END 1"
    store.write([record(b"END 3", 3)])
    assert client.get("toy-meta-a") == b"END 3"


def test_what_was_stored_by_half_is_stored_when_it_is_repeated(
    store: RedisStore, client: Any
) -> None:
    """A connection may be cut, and a server killed, between a fence and its value."""
    store.write([record(b"END 1", 1)])
    for missing in ("toy-meta-a", "fsdf:fence:toy-meta-a"):
        client.delete(missing)
        store.write([record(b"END 1", 1), record(b".. 0", 0)])
        assert client.get("toy-meta-a") == b"END 1"
        assert client.get("fsdf:fence:toy-meta-a") == b"0.1Fo\n"


def test_a_name_is_no_pattern(store: RedisStore, client: Any) -> None:
    store.add_layout(layout := Layout("odd", "[a]\\*?-", toy_ended))
    received = Received()
    inbox = store.inbox(received, nothing, layout="odd")
    connected(store, inbox, received, "odd")
    inbox.watch(["1"])
    connected(store, inbox, received, "odd")
    store.write([Record("1", b"END", layout="odd")])
    assert received.wait_for("1") == {"1": b"END"}
    assert client.get(layout.prefix + "1") == b"END"
    inbox.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_who_waits_in_a_layout_gets_the_very_bytes(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("redis_url") if kind == "redis" else str(tmp_path / "r.sqlite")
    engine = Engine()
    options = TaskOptions(broker_kind="memory", result_store=kind, result_url=url)
    laid, plain = engine.replies(options, TOY), engine.replies(options)
    assert engine.replies(options, TOY) is laid is not plain
    assert laid.store is plain.store
    got: list[bytes | None] = []
    waiting = threading.Thread(target=lambda: got.append(laid.wait("a", BOUND, "")))
    waiting.start()
    until(lambda: laid._waiting)
    laid.store.write([Record("a", b"of no layout"), record(b"..")])
    laid.store.write([record(b"END a")])
    waiting.join()
    assert got == [b"END a"]
    assert laid.wait("a", BOUND, "") == b"END a"
    assert plain.wait("a", BOUND, "") == b"of no layout"
    engine.close()
