"""redis-py alone: LPUSH of ready bytes, those of one message of fsdf."""

import os
from collections.abc import Iterable

import redis

client = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])
body = bytes.fromhex(os.environ["BENCH_RAW_BODY"])


def publish(numbers: Iterable[int]) -> None:
    for _ in numbers:
        client.lpush("bench", body)


def publish_many(numbers: Iterable[int]) -> None:
    count = len(list(numbers))
    bodies = [body] * 500
    for first in range(0, count, 500):
        client.lpush("bench", *bodies[: count - first])
