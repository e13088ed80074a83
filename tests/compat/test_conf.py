"""`app.conf`: where settings come from, and what is said about those that have no effect."""

from __future__ import annotations

import sys
import types

import pytest

from fsdf_compat import App, Celery
from fsdf_compat.app.defaults import DEFAULTS, KNOWN
from fsdf_compat.app.places import broker_options, rank, result_options
from fsdf_compat.exceptions import ImproperlyConfigured, NotYetSupported


@pytest.fixture
def module():
    made = types.ModuleType("some_settings")
    sys.modules["some_settings"] = made
    yield made
    del sys.modules["some_settings"]


def test_attributes_and_items_are_the_same():
    app = Celery("proj", broker="memory://", worker_concurrency=3)
    app.conf.task_acks_late = True
    app.conf["result_expires"] = 60
    app.conf.update(task_default_queue="q", timezone="Asia/Shanghai")
    assert (app.conf["task_acks_late"], app.conf.result_expires) == (True, 60)
    assert (app.conf.task_default_queue, app.conf.worker_concurrency) == ("q", 3)
    assert app.conf.broker_url == "memory://"
    assert str(app.timezone) == "Asia/Shanghai"
    assert app.conf.get("nothing", 7) == 7
    assert "task_acks_late" in app.conf
    assert App is Celery


def test_unset_settings_have_celerys_defaults():
    conf = Celery().conf
    assert (conf.task_default_queue, conf.worker_pool) == ("celery", "prefork")
    assert conf.task_acks_late is False
    assert conf.result_backend is None
    assert conf.beat_schedule is None


def test_settings_come_from_a_module_when_they_are_looked_at(module):
    app = Celery()
    app.config_from_object("some_settings")
    module.task_default_queue = "late"
    module.BROKER_URL = "redis://old"
    module.CELERY_ACKS_LATE = True
    module.something_else = 1
    module.sys = sys
    app.conf.worker_concurrency = 9
    module.worker_concurrency = 1
    assert app.conf.task_default_queue == "late"
    assert app.conf.broker_url == "redis://old"
    assert app.conf.task_acks_late is True
    assert app.conf.worker_concurrency == 9
    assert app.conf.something_else == 1
    assert "sys" not in app.conf


def test_old_names_are_understood_wherever_they_are_given(module):
    app = Celery(CELERY_DEFAULT_QUEUE="old")
    app.conf.BROKER_URL = "memory://"
    app.conf.update(CELERY_ACKS_LATE=True, CELERY_ROUTES={})
    assert (app.conf.broker_url, app.conf.task_acks_late) == ("memory://", True)
    assert (app.conf["BROKER_URL"], app.conf.task_default_queue) == ("memory://", "old")
    assert app.conf.unused() == ["CELERY_ROUTES"]
    module.CELERY_QUEUES = ()
    app.config_from_object("some_settings")
    assert app.conf.unused() == ["CELERY_QUEUES", "CELERY_ROUTES"]


def test_namespace_chooses_its_own_names(module):
    module.CELERY_TASK_DEFAULT_QUEUE = "spaced"
    module.CELERY_WORKER_CONCURENCY = 5
    module.task_acks_late = True
    app = Celery()
    app.config_from_object("some_settings", namespace="CELERY")
    assert app.conf.task_default_queue == "spaced"
    other = Celery(config_source="some_settings", namespace="CELERY_")
    assert other.conf.task_default_queue == "spaced"
    assert app.conf.task_acks_late is False
    assert app.conf.misspelt() == {"worker_concurency": "worker_concurrency"}


def test_settings_come_from_classes_and_mappings():
    class Config:
        task_ignore_result = True

    app = Celery(config_source=Config)
    app.config_from_object({"result_expires": 5})
    assert app.conf.task_ignore_result is True
    assert app.conf.result_expires == 5


def test_missing_settings_module_is_named_unless_silent():
    app = Celery()
    app.config_from_object("no_such_settings")
    with pytest.raises(ImproperlyConfigured, match="no_such_settings"):
        app.conf.broker_url
    quiet = Celery()
    quiet.config_from_object("no_such_settings", silent=True)
    assert quiet.conf.broker_url is None


def test_environment_wins(monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://env/1")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://env/2")
    conf = Celery(broker="redis://code", backend="redis://code").conf
    assert (conf.broker_url, conf.result_backend) == ("redis://env/1", "redis://env/2")


def test_settings_without_effect_are_known_and_misspelt_ones_suggested():
    conf = Celery(task_track_started=True, task_ack_late=True, my_own=1).conf
    assert conf.unused() == ["task_track_started"]
    assert conf.misspelt() == {"task_ack_late": "task_acks_late"}
    assert conf.my_own == 1
    with pytest.raises(AttributeError, match="did you mean 'broker_url'"):
        conf.broker_ulr


def test_every_key_of_celery_is_known():
    defaults = pytest.importorskip("celery.app.defaults")
    assert set(defaults.SETTING_KEYS) - set(DEFAULTS) - KNOWN == set()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (None, {"broker_kind": "sqlite"}),
        ("memory://", {"broker_kind": "memory"}),
        ("sqlite:////x/y", {"broker_kind": "sqlite", "broker_url": "sqlite:////x/y"}),
        ("sqla+sqlite:///y", {"broker_kind": "sqlite", "broker_url": "sqlite:///y"}),
        ("redis://h:1/2", {"broker_kind": "redis_ack", "broker_url": "redis://h:1/2"}),
        ("redis://", {"broker_kind": "redis_ack", "broker_url": "redis://127.0.0.1:6379/0"}),
        ("rediss://h", {"broker_kind": "redis_ack", "broker_url": "rediss://h"}),
        (
            "rediss://h/1?ssl_cert_reqs=CERT_NONE&a=b",
            {"broker_kind": "redis_ack", "broker_url": "rediss://h/1?ssl_cert_reqs=none&a=b"},
        ),
        (
            "redis:///3?a=b",
            {"broker_kind": "redis_ack", "broker_url": "redis://127.0.0.1:6379/3?a=b"},
        ),
        (
            "redis+socket:///run/r.sock?virtual_host=3",
            {"broker_kind": "redis_ack", "broker_url": "unix:///run/r.sock?db=3"},
        ),
    ],
)
def test_broker_url_becomes_the_engines_options(url, options):
    assert broker_options(url) == options


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (None, None),
        ("disabled", None),
        ("cache+memory://", {"result_store": "memory"}),
        ("db+sqlite:///y", {"result_store": "sqlite", "result_url": "sqlite:///y"}),
        ("redis://h/1", {"result_store": "redis", "result_url": "redis://h/1"}),
        ("redis", {"result_store": "redis", "result_url": "redis://127.0.0.1:6379/0"}),
    ],
)
def test_result_backend_becomes_the_engines_options(url, options):
    assert result_options(url) == options


def test_priority_0_is_the_first_over_redis_and_9_elsewhere():
    numbers = range(10)
    steps = [0, 0, 0, -3, -3, -3, -6, -6, -6, -9]
    assert [rank("redis://h/1", n) for n in numbers] == steps
    assert [rank("redis+socket:///run/r.sock", n) for n in numbers] == steps
    assert [rank("redis://", n) for n in (-1, 10)] == [0, -9]
    assert [rank("sqlite:///x", n) for n in numbers] == list(numbers)
    assert [rank(None, n) for n in numbers] == list(numbers)


@pytest.mark.parametrize(
    "url", ["amqp://guest@localhost//", "sqs://", "redis://a;redis://b", ["x"]]
)
def test_other_transports_are_refused_by_name(url):
    with pytest.raises(NotYetSupported, match="broker_url"):
        broker_options(url)
