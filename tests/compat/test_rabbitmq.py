"""Celery's shape over RabbitMQ: priorities, and settings. Its behaviour is in test_places."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers import until

from fsdf_compat import Celery, _alias
from fsdf_compat._app.places import engine_place

PROJECT = """
import os
from celery import Celery
app = Celery("proj", broker={url!r})

@app.task(ignore_result=True)
def note(n):
    with open({notes!r}, "a") as file:
        file.write(f"{{n}}\\n")
"""


def test_priority_9_is_the_first(tmp_path, rabbitmq_url):
    notes = tmp_path / "notes"
    (tmp_path / "proj.py").write_text(PROJECT.format(url=rabbitmq_url, notes=str(notes)))
    environment = {**os.environ, **_alias.environment()}
    send = "from proj import note\nfor n in (0, 3, 9, 5): note.apply_async((n,), priority=n)"
    subprocess.run([sys.executable, "-c", send], cwd=tmp_path, env=environment, check=True)
    words = ["-m", "celery", "-A", "proj", "worker", "-P", "solo", "-l", "ERROR"]
    worker = subprocess.Popen(
        [sys.executable, *words],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: notes.exists() and len(notes.read_text().split()) == 4)
        assert notes.read_text().split() == ["9", "5", "3", "0"]
    finally:
        worker.terminate()
        worker.wait()


@pytest.mark.parametrize(
    ("url", "settings", "place"),
    [
        ("amqp://", {}, "amqp://localhost?queue_type=classic&timeout=4.0"),
        ("pyamqp://u:p@h:1/v", {}, "pyamqp://u:p@h:1/v?queue_type=classic&timeout=4.0"),
        (
            ["amqp://a//", "amqp://b//?timeout=1"],
            {"task_default_queue_type": "quorum"},
            "amqp://a//?queue_type=quorum&timeout=4.0;amqp://b//?timeout=1&queue_type=quorum",
        ),
        (
            "amqp://h",
            {"broker_use_ssl": {"ca_certs": "/ca.pem"}, "broker_connection_timeout": None},
            "amqps://h?queue_type=classic&ssl_ca_certs=/ca.pem",
        ),
    ],
)
def test_what_the_settings_say_of_rabbitmq_is_in_the_engines_url(url, settings, place):
    app = Celery("x", broker=url, set_as_current=False)
    app.conf.update(settings)
    assert engine_place(app.conf) == {"broker_kind": "rabbitmq_amqpstorm", "broker_url": place}
