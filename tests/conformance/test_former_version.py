"""A worker of a former version on the same queue: it touches nothing of a priority below 0.

`golden/former_redis_scripts.json` holds what such workers run on the server, word for word: texts,
and which of them make each script.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from helpers import until
from redis_leases import take

from fsdf_engine.contracts import Broker, Delivery, Outgoing
from fsdf_engine.outcomes import ACK, DeadLetter, Release
from fsdf_engine.registry import brokers
from fsdf_engine.testing.brokers import MB

GOLDEN = json.loads(
    (Path(__file__).parent.parent / "golden" / "former_redis_scripts.json").read_bytes()
)
Q = "q"
EVERY = [(version, kind) for version, kinds in GOLDEN["versions"].items() for kind in kinds]


class Former:
    """What a worker of that version does to the queue."""

    def __init__(self, client: redis.Redis, version: str, kind: str) -> None:
        self.client, self.version, self.kind = client, version, kind
        self.streams = kind == "redis_stream"
        self._facts = GOLDEN["versions"][version][kind]
        self._numbers = count(1)

    def run(self, name: str, *arguments: Any) -> Any:
        text = "".join(GOLDEN["texts"][n] for n in self._facts["scripts"][name])
        keys = self._facts["keys"]
        return self.client.eval(text, len(keys), *keys, *arguments)

    def fetch(self, limit: int = 100) -> list[tuple[bytes, tuple[Any, ...]]]:
        """Return bodies with their leases."""
        now = time.time()
        if self.streams:
            _, _, *runs = self.run("CLAIM", "former/30.000", limit, MB, 30.0, 0, now)
            runs = runs if runs and isinstance(runs[0], list) else []
            return [
                (body, (run[0], *self._told(id))) for run in runs for id, body in pairs(run[1:])
            ]
        lists = self.kind == "redis_brpoplpush"
        key = f"{{{Q}}}:{'o' if lists else 'b'}:{next(self._numbers)}"
        last = (now, "") if lists else (8, "", now + 60.0)
        entries, _, items, *_ = self.run("CLAIM", key, limit, MB, 30.0, "", *last)
        found = []
        for n, item in enumerate(items, 1):
            body = item.partition(b"\n")[2] if n <= entries else item
            found.append((body, (key, n if lists else bytes([n + 128 * (n <= entries)]))))
        return found

    @staticmethod
    def _told(id: bytes) -> tuple[Any, ...]:
        words = id.split(b" ")
        return (words[1] if len(words) > 1 else 1, words[0])

    def settle(self, lease: tuple[Any, ...], *verdict: Any) -> None:
        """End a lease: with nothing, or with how RETURN is told about a verdict."""
        me = ("former/30.000",) if self.streams else ()
        if verdict:
            answer = self.run("RETURN", *me, *lease, *verdict)
            assert (answer if self.streams else answer[1]) == []
        elif self.streams:
            assert self.run("ACK", *me, *lease[:2], 1, lease[2]) == []
        else:
            assert self.run("ACK", lease[0], 1, lease[1]) == []


def pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


def message(name: str, priority: int = 0, **options: float) -> Outgoing:
    return Outgoing(Q, name, name.encode(), priority=priority, **options)  # type: ignore[arg-type]


@pytest.fixture(params=EVERY, ids=lambda pair: "-".join(pair))
def former(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Former]:
    with redis.Redis.from_url(redis_url) as client:
        yield Former(client, *request.param)


@pytest.fixture
def broker(former: Former, redis_url: str) -> Iterator[Broker]:
    broker = brokers.load(former.kind)(redis_url)
    yield broker
    broker.close()


def put_below(broker: Broker) -> list[Any]:
    """Have something below 0 in every part; return the subscriptions that lease it."""
    subs = [broker.subscribe(Q, lease=lease) for lease in (0.05, 600.0)]
    ended, held = subs
    for name, priority, verdict in (
        ("held", -3, None),
        ("dead", -3, DeadLetter("bad")),
        ("later", -9, Release(0.001, {"attempt": 2})),
        ("back", -6, Release(0.0, {"attempt": 1})),
    ):
        broker.publish([message(name, priority)])
        [d] = take(held, 1)
        assert d.body == name.encode()
        held.settle([(d.lease, verdict)] if verdict else [])
    broker.publish([message("ended", -3)])
    assert [d.body for d in take(ended, 1)] == [b"ended"]
    broker.publish([message("due", -9, not_before=1.0), message("far", -3, delay=600.0)])
    broker.publish([message("wait3", -3), message("wait6", -6), message("wait9", -9)])
    until(lambda: broker.size(Q) == (6, 1, 2, 1))
    return subs


def kept(client: redis.Redis) -> dict[bytes, bytes | None]:
    """Return what stands in every key but those that all priorities share."""
    names = (b"dead", b"letters", b"states", b"bell", b"waiters")
    shared = {Q.encode(), *[b"{q}:" + name for name in names]}
    return {key: client.dump(key) for key in client.keys("*") if key not in shared}


def rest(broker: Broker, deliveries: int) -> list[Delivery]:
    sub = broker.subscribe(Q, lease=30.0)
    found = take(sub, deliveries)
    assert not sub.settle([(d.lease, ACK) for d in found])
    sub.close()
    return found


def test_former_worker_runs_the_others_and_leaves_what_is_below_0(former, broker):
    subs = put_below(broker)
    before = kept(former.client)
    names = {"plain": 0, "due0": 0, "five": 5, "back5": 5}
    broker.publish([message("back5", 5)])
    [d] = take(subs[1], 1)
    subs[1].settle([(d.lease, Release(0.0, {"attempt": 1}))])
    broker.publish([message("plain"), message("due0", not_before=1.0), message("five", 5)])

    found = former.fetch()
    assert sorted(body.decode() for body, _ in found) == sorted(names)
    leases = dict(found)
    former.settle(leases[b"plain"], "back", 0, '{"attempt":1}')
    former.settle(leases[b"five"], "back", 0.01, "")
    former.settle(leases[b"back5"], "dead", 0, '["bad",""]')
    former.settle(leases[b"due0"])
    again: list[tuple[bytes, tuple[Any, ...]]] = []
    until(lambda: again.extend(former.fetch()) or len(again) == 2)
    assert {body for body, _ in again} == {b"plain", b"five"}
    for _, lease in again:
        former.settle(lease)
    if former.streams:
        former.run("EXTEND", "former/30.000")
    else:
        former.run("LOOK", "1", "")
    assert not former.fetch()
    assert former.run("SIZE") == [0, 0, 0, 2]
    assert former.run("PURGE", "waiting", "delayed", "leased") == 0
    after = kept(former.client)
    assert {key: after.get(key) for key in before} == before

    assert broker.size(Q) == (6, 1, 2, 2)
    told = {d.body: (d.priority, d.deliveries, d.state) for d in rest(broker, 7)}
    assert told == {
        b"wait3": (-3, 0, None), b"ended": (-3, 1, None), b"wait6": (-6, 0, None),
        b"back": (-6, 0, {"attempt": 1}), b"wait9": (-9, 0, None), b"due": (-9, 0, None),
        b"later": (-9, 0, {"attempt": 2}),
    }  # fmt: skip
    for sub in subs:
        sub.close()


def test_former_worker_replays_a_dead_letter_below_0_as_a_plain_message(former, broker):
    for sub in put_below(broker):
        sub.close()
    [letter] = broker.dead_letters(Q)
    _, head, body = former.client.hget("{q}:letters", letter.id).split(b"\n", 2)
    assert re.fullmatch(rb"[\w/-]*:\d{1,9}:\d:[^\n]*", head)  # as they look for it to list it
    assert body == letter.body == b"dead"
    former.run("REPLAY", letter.id, *[body] * (former.version != "4f8e832"))
    assert [body for body, _ in former.fetch()] == [b"dead"]
    assert broker.size(Q).dead == 0
