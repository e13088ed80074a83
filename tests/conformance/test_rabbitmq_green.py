"""RabbitMQ under gevent and eventlet, by each client."""

from __future__ import annotations

import pytest
from green import LIBRARIES, run_patched
from rabbitmq_tls import secured


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", ["rabbitmq_amqpstorm", "rabbitmq_pika"])
def test_patched_suite_passes(library, kind, rabbitmq_server, monkeypatch):
    url, api = rabbitmq_server
    monkeypatch.setenv("FSDF_TEST_RABBITMQ_URL", url.rpartition("/")[0] + "/")
    monkeypatch.setenv("FSDF_TEST_RABBITMQ_API", api.base)
    monkeypatch.setenv("FSDF_TEST_GREEN_BROKER", kind)
    with secured(url) as tls:
        monkeypatch.setenv("FSDF_TEST_GREEN_TLS", tls.rpartition("/")[0])
        run_patched(library, "tests/conformance/patched_rabbitmq.py")
