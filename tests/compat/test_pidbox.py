"""The ear of a worker: it sleeps until it is asked, or told to stop."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from helpers import BOUND, until
from kombu import Connection

from fsdf_compat import Celery
from fsdf_compat.worker.pidbox import Pidbox


@pytest.fixture(params=["redis_url", "rabbitmq_url"])
def app(request):
    url = request.getfixturevalue(request.param)
    with Celery("proj", broker=url, set_as_current=False, fixups=[]) as made:
        yield made


@pytest.fixture
def looks(monkeypatch):
    """For how many seconds it has waited each time; the last one may go on."""
    told, drain = [], Connection.drain_events

    def drain_events(self, **kwargs):
        told.append(kwargs["timeout"])
        return drain(self, **kwargs)

    monkeypatch.setattr(Connection, "drain_events", drain_events)
    return told


def test_a_worker_that_nobody_asks_does_not_look_and_yet_answers_and_stops_at_once(app, looks):
    box = Pidbox(SimpleNamespace(app=app, hostname="me@here", controller=None))
    box.start(BOUND)
    until(lambda: len(looks) == 2)  # the first one has subscribed
    assert looks[1] >= 60
    answers = app.control.broadcast("ping", reply=True, timeout=BOUND, limit=1)
    assert answers == [{"me@here": {"ok": "pong"}}]
    box.stop()
    assert not box._thread.is_alive()
