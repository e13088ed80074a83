"""What several files of this folder share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from fsdf_engine.brokers.redis_ack import RedisAckBroker
from fsdf_engine.contracts import Broker
from fsdf_engine.registry import brokers
from fsdf_engine.stores.redis import RedisStore


@pytest.fixture
def make(kind_of_broker: str) -> Iterator[Callable[[str], Broker]]:
    """`make(url)` -> a broker of the kind that the file names, closed at the end."""
    made: list[Broker] = []

    def make(url: str) -> Broker:
        made.append(brokers.load(kind_of_broker)(url))
        return made[-1]

    yield make
    for broker in made:
        broker.close()


@pytest.fixture
def broker(redis_url: str) -> Iterator[RedisAckBroker]:
    """A REDIS_ACK_ABLE on an empty database, where a file or a suite has no other broker."""
    broker = RedisAckBroker(redis_url)
    yield broker
    broker.close()


@pytest.fixture(params=["one database", "another database"])
def store(request: pytest.FixtureRequest, redis_url: str) -> Iterator[RedisStore]:
    """A store beside that broker, in its database and in another one of the same Redis."""
    apart = request.param == "another database"
    store = RedisStore(f"{redis_url.rpartition('/')[0]}/9" if apart else redis_url)
    with redis.Redis.from_url(store.url) as server:
        if apart:  # the other one is empty
            server.flushdb()
        yield store
        if apart:
            server.flushdb()
    store.close()
