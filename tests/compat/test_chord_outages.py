"""Chords whose groups are changed over a connection that is lost meanwhile."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from chaos.proxy import Proxy
from helpers import BOUND
from kombu.exceptions import OperationalError

from fsdf_compat import Celery, chord
from fsdf_compat.contrib.testing.worker import start_worker
from fsdf_engine import Unavailable
from fsdf_engine.grouping import Grouping


@pytest.fixture
def proxy(redis_url):
    made = Proxy(urlsplit(redis_url).port)
    yield made
    made.close()


@pytest.fixture
def app(proxy):
    url = f"redis://127.0.0.1:{proxy.port}/0"
    with Celery("cut", broker="memory://", backend=url, set_as_current=False, fixups=[]) as made:
        made.conf.worker_hijack_root_logger = False
        yield made


@pytest.fixture
def add(app):
    return app.task(name="add", shared=False)(lambda x, y: x + y)


@pytest.fixture
def total(app):
    return app.task(name="total", shared=False)(lambda values: sum(values))


def failing(monkeypatch, step, fail):
    """Let a step call `fail` before it is taken for the first time; return how often it was."""
    taken, real = [], getattr(Grouping, step)

    def take(self, *args):
        taken.append(step)
        if len(taken) == 1:
            fail()
        return real(self, *args)

    monkeypatch.setattr(Grouping, step, take)
    return taken


def unsent():
    raise Unavailable("the connection was lost before anything was sent")


@pytest.mark.parametrize("is_sent", [False, True])
@pytest.mark.parametrize("step", ["open", "set_size", "grow"])
def test_a_connection_that_is_lost_once_while_a_chord_is_sent_costs_nothing(
    proxy, app, add, total, monkeypatch, step, is_sent
):
    def lose_the_answer():
        proxy.deaf = 1

    taken = failing(monkeypatch, step, lose_the_answer if is_sent else unsent)
    result = chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async()
    app.backend.add_to_chord(result.parent.id, app.AsyncResult("third"))
    group = {"group_id": result.parent.id, "chord": total.s()}
    add.apply_async((3, 3), task_id="third", **group)
    assert (taken, proxy.deaf) == ([step, step], 0)
    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False):
        assert result.get(timeout=BOUND) == 12  # counted twice, it would wait for a fourth


def test_a_chain_goes_on_with_a_chord_though_the_connection_is_lost_once(
    app, add, total, monkeypatch
):
    taken = failing(monkeypatch, "open", unsent)
    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False):
        sent = (add.s(1, 1) | chord([add.s(1), add.s(2)], total.s())).apply_async()
        assert sent.get(timeout=BOUND) == 7
    assert taken == ["open", "open"]


@pytest.mark.parametrize("settings", [{"task_publish_retry": False}, {"max_retries": 0}])
def test_a_chord_is_not_sent_again_where_the_settings_say_so(
    app, add, total, monkeypatch, settings
):
    if "max_retries" in settings:
        settings = {"task_publish_retry_policy": settings}
    app.conf.update(settings)
    monkeypatch.setattr(Grouping, "open", lambda self, groups: unsent())
    with pytest.raises(OperationalError, match="was lost"):
        chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async()
