"""What is acknowledged early while the server's answer is lost on its way."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from chaos.proxy import Proxy
from helpers import until

from fsdf_engine import default_engine, task_deco
from fsdf_engine.core.early import Early

KINDS = {
    "redis_ack": "redis_url",
    "sqlalchemy": "postgresql_url",
    "sqlalchemy on MariaDB": "mysql_url",
    "rabbitmq_pika": "rabbitmq_url",
    "rabbitmq_amqpstorm": "rabbitmq_url",
}
MESSAGES = 12


@pytest.fixture(params=KINDS)
def place(request):
    """The options of a queue, and a proxy before its server by which another URL leads there."""
    url = urlsplit(request.getfixturevalue(KINDS[request.param]))
    proxy = Proxy(url.port)
    user, at, _ = url.netloc.rpartition("@")
    through = url._replace(netloc=f"{user}{at}127.0.0.1:{proxy.port}").geturl()
    yield {"broker_kind": request.param.partition(" ")[0]}, url.geturl(), through, proxy
    default_engine().stop()
    proxy.close()


def test_what_is_acknowledged_early_without_an_answer_runs_once_or_is_dead(place, monkeypatch):
    """The latter only where a lease ends with its connection: nobody knows who has the message."""
    options, url, through, proxy = place
    acknowledge, lossy, ran = Early.acknowledge, [], []

    def lose(early):
        if not lossy:
            lossy.append(early)
            proxy.deaf = 1
        return acknowledge(early)

    monkeypatch.setattr(Early, "acknowledge", lose)
    options |= {"ack": "early", "lease": 2.0, "concurrent_num": 2}
    there = task_deco("unheard", broker_url=url, **options)(ran.append)
    for n in range(MESSAGES):
        there.push(n)
    task_deco("unheard", broker_url=through, **options)(ran.append).consume()
    until(lambda: lossy and not proxy.deaf)
    there.consume()
    until(lambda: len(ran) + there.size().dead >= MESSAGES and sum(there.size()[:2]) == 0)
    assert there.join()
    dead = there.size().dead
    assert len(ran) == len(set(ran)) == MESSAGES - dead
    assert not dead or "rabbitmq" in options["broker_kind"]
