"""The ears of a worker and of beat: they sleep until they are asked, or told to stop."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from helpers import BOUND, until
from kombu import Connection

from fsdf_compat import Celery
from fsdf_compat.beat import BeatPidbox
from fsdf_compat.worker import pidbox
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


def test_an_outage_is_told_once_and_so_is_its_end(own_redis, monkeypatch, caplog):
    server = own_redis()
    monkeypatch.setattr(pidbox, "_PAUSES", (0.01,))
    caplog.set_level("INFO", "celery.worker.pidbox")

    def told():
        return [r.getMessage().partition(":")[2] for r in caplog.records if "pidbox" in r.name]

    with Celery("proj", broker=server.url, set_as_current=False, fixups=[]) as app:
        box = Pidbox(SimpleNamespace(app=app, hostname="me@here", controller=None))
        box.start(BOUND)
        for _ in range(2):
            caplog.clear()
            server.kill()
            until(lambda: box._failures > 1)
            server.start()
            until(lambda: box._failures == 0)
            lost, back = told()
            assert lost.startswith(" connection lost, it is tried again: ")
            assert back == " connected again"
        box.stop()


def test_a_worker_whose_name_another_one_has_says_so_and_listens_when_that_has_left(
    rabbitmq_url, monkeypatch, caplog
):
    monkeypatch.setattr(pidbox, "_PAUSES", (0.01,))
    caplog.set_level("INFO", "celery.worker.pidbox")
    with Celery("proj", broker=rabbitmq_url, set_as_current=False, fixups=[]) as app:
        controlled = SimpleNamespace(app=app, hostname="me@here", controller=None)
        first, second = Pidbox(controlled), Pidbox(controlled)
        first.start(BOUND)
        second.start(BOUND)
        until(lambda: second._failures > 1)
        [told] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        assert told.startswith("pidbox: another worker has the name me@here, give each one of its")
        assert "by -n;" in told
        first.stop()
        until(lambda: second._failures == 0)
        assert caplog.records[-1].getMessage() == "pidbox: connected again"
        second.stop()


def test_beat_does_not_look_either(app, looks):
    service = SimpleNamespace(
        app=app, hostname="beat@here", _last_tick=None, effective_max_interval=None, max_interval=1
    )
    box = BeatPidbox(service)
    box.start()
    until(lambda: len(looks) == 2)
    assert looks[1] >= 60
    [answer] = app.control.broadcast("ping", reply=True, timeout=BOUND, limit=1)
    assert list(answer.values()) == [{"ok": "pong"}]
    box.stop()
    assert box.thread is None  # it has ended
