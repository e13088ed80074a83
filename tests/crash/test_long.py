"""A run that lasts longer than its lease, and than a server lets anybody owe an acknowledgement."""

from __future__ import annotations

import threading
from urllib.parse import quote, urlsplit

import pika
import pytest
from helpers import until

from fsdf_engine import task_deco

LASTS, LEASE = 180.0, 10.0  # seconds; consumer_timeout is 60 s on the tests' RabbitMQ
FIRST_SIX = ["memory", "sqlite", "redis", "redis_ack", "redis_stream", "redis_brpoplpush"]
RABBITMQ = ["rabbitmq_pika", "rabbitmq_amqpstorm"]
SQL = ["postgresql", "mysql"]
USER = "fsdf-long"


@pytest.fixture
def plain_rabbitmq(rabbitmq_url, rabbitmq_api):
    """The URL of a virtual host for a user who may set no policies, and ask the API nothing.

    He stays, as consumers still need him: his rights go with the virtual host.
    """
    parts = urlsplit(rabbitmq_url)
    rights = dict.fromkeys(("configure", "write", "read"), ".*")
    rabbitmq_api("PUT", f"users/{USER}", {"password": "plain", "tags": ""})
    rabbitmq_api("PUT", f"permissions/{quote(parts.path[1:], safe='')}/{USER}", rights)
    return f"amqp://{USER}:plain@{parts.hostname}:{parts.port}{parts.path}"


@pytest.fixture
def places(request, redis_url, plain_rabbitmq):
    """All (broker, URL, queue); one queue of RabbitMQ is classic, and another program's."""
    with pika.BlockingConnection(pika.URLParameters(plain_rabbitmq)) as other:
        other.channel().queue_declare("long.theirs", durable=True)
    places = [(kind, redis_url if "redis" in kind else None, "long") for kind in FIRST_SIX]
    for server in SQL:
        places.append(("sqlalchemy", request.getfixturevalue(f"{server}_url"), "long"))
    for kind in RABBITMQ:
        for queue in ("quorum", "classic"):
            url = f"{plain_rabbitmq}?queue_type={queue}"
            places.append((kind, url, f"long.{queue}.{kind}"))
        places.append((kind, plain_rabbitmq, "long.theirs"))
    return places


@pytest.mark.slow
def test_a_run_of_three_minutes_runs_once(places):
    """On every broker at the same time."""
    started, ended, over = [], [], threading.Event()

    def work(name):
        started.append(name)
        over.wait(LASTS)
        ended.append(name)

    tasks = []
    for n, (kind, url, queue) in enumerate(places):
        where = {"broker_kind": kind, **({"broker_url": url} if url else {})}
        if kind.startswith("redis"):
            queue = f"{queue}.{kind}"  # all are in one Redis
        tasks.append(task_deco(queue, lease=LEASE, concurrent_num=2, **where)(work))
        tasks[-1].push(f"{n}: {queue} by {kind}")
        tasks[-1].consume()
    until(lambda: len(started) == len(tasks))
    until(lambda: len(ended) == len(tasks), LASTS + 30.0)
    for task in tasks:
        assert task.join(20.0)
        assert task.size()[:2] == (0, 0)
    assert len(started) == len(set(started)) == len(tasks)
