"""`app.conf`: where settings come from, and what is said about those that have no effect."""

from __future__ import annotations

import ssl
import sys
import types
from datetime import datetime, timezone

import pytest

from fsdf_compat import App, Celery
from fsdf_compat._app.places import engine_place
from fsdf_compat._app.unused import misspelt, without_effect
from fsdf_compat._engine.places import broker_options, rank, result_options
from fsdf_compat.app.defaults import DEFAULTS, SETTING_KEYS
from fsdf_compat.exceptions import ImproperlyConfigured


@pytest.fixture
def module():
    made = types.ModuleType("some_settings")
    sys.modules["some_settings"] = made
    yield made
    del sys.modules["some_settings"]


def celery(*args, **kwargs):
    return Celery(*args, set_as_current=False, fixups=[], **kwargs)


def test_attributes_and_items_are_the_same():
    app = celery("proj", broker="memory://", worker_concurrency=3)
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
    conf = celery().conf
    assert (conf.task_default_queue, conf.worker_pool) == ("celery", "prefork")
    assert conf.task_acks_late is False
    assert conf.result_backend is None
    assert conf.beat_schedule == {}
    assert conf.broker_transport_options == {}


def test_a_default_of_one_app_is_not_that_of_another():
    celery().conf.beat_schedule["mine"] = 1
    assert celery().conf.beat_schedule == {}


def test_settings_come_from_a_module_when_they_are_looked_at(module):
    app = celery()
    app.config_from_object("some_settings")
    module.task_default_queue = "late"
    module.something_else = 1
    app.conf.worker_concurrency = 9
    module.worker_concurrency = 1
    assert not app.configured
    assert app.conf.task_default_queue == "late"
    assert app.conf.worker_concurrency == 9
    assert app.conf.something_else == 1
    assert app.configured


def test_old_names_are_understood(module):
    module.BROKER_URL = "redis://old"
    module.CELERY_ACKS_LATE = True
    module.CELERYD_CONCURRENCY = 4
    app = celery()
    app.config_from_object("some_settings")
    assert (app.conf.broker_url, app.conf.task_acks_late) == ("redis://old", True)
    assert app.conf["CELERYD_CONCURRENCY"] == app.conf.worker_concurrency == 4


@pytest.mark.parametrize(
    ("names", "renamed"),
    [
        ({"task_acks_late": 1, "worker_pool": "solo", "CELERY_IGNORE_RESULT": 1}, "ignore_result"),
        ({"CELERY_ACKS_LATE": 1, "BROKER_URL": "memory://", "worker_pool": "solo"}, "CELERYD_POOL"),
    ],
)
def test_old_and_new_names_are_not_mixed(names, renamed):
    app = celery()
    app.config_from_object(names)
    with pytest.raises(ImproperlyConfigured, match=renamed):
        app.conf.task_acks_late  # noqa: B018
    agreed = celery()
    agreed.config_from_object({"task_acks_late": 1, "CELERY_ACKS_LATE": 1})
    assert agreed.conf.task_acks_late == 1


def test_namespace_chooses_its_own_names(module):
    module.CELERY_TASK_DEFAULT_QUEUE = "spaced"
    module.CELERY_WORKER_CONCURENCY = 5
    module.task_acks_late = True
    app = celery()
    app.config_from_object("some_settings", namespace="CELERY")
    assert app.conf.task_default_queue == "spaced"
    assert celery(config_source="some_settings", namespace="CELERY").conf.task_default_queue == (
        "spaced"
    )
    assert misspelt(app.conf) == {"worker_concurency": "worker_concurrency"}


def test_settings_come_from_classes_and_mappings():
    class Config:
        task_ignore_result = True

    assert celery(config_source=Config).conf.task_ignore_result is True
    app = celery()
    app.config_from_object({"result_expires": 5})
    assert app.conf.result_expires == 5


def test_missing_settings_module_is_named_unless_silent():
    app = celery()
    app.config_from_object("no_such_settings")
    with pytest.raises(ModuleNotFoundError, match="no_such_settings"):
        app.conf.broker_url  # noqa: B018
    quiet = celery()
    quiet.config_from_object("no_such_settings", silent=True)
    assert quiet.conf.broker_url is None


def test_environment_wins(monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://env/1")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://env/2")
    conf = celery(broker="redis://code", backend="redis://code").conf
    assert (conf.broker_url, conf.result_backend) == ("redis://env/1", "redis://env/2")


def test_what_is_done_when_settings_are_there_comes_after_them():
    app, seen = celery(broker="memory://"), []

    @app.on_after_configure.connect
    def schedule(sender, **kwargs):
        seen.append(sender.conf.broker_url)
        sender.add_periodic_task(5, sender.signature("tick"), name="every 5")

    app.add_defaults(lambda: {"own_setting": 3})
    assert seen == []
    assert app.conf.own_setting == 3
    assert seen == ["memory://"]
    assert app.conf.beat_schedule["every 5"]["task"] == "tick"


def test_settings_without_effect_are_known_and_misspelt_ones_suggested():
    conf = celery(task_compression="gzip", broker_pool_limit=3, task_ack_late=True, my_own=1).conf
    assert list(without_effect(conf)) == ["task_compression"]
    assert misspelt(conf) == {"task_ack_late": "task_acks_late"}
    assert conf.my_own == 1
    assert without_effect(celery().conf) == misspelt(celery().conf) == {}


def test_every_key_of_celery_is_known():
    ours = {"fsdf_queue_suffix", "import_unknown_tasks", "worker_coroutines"}
    assert len(SETTING_KEYS - ours) == 207
    assert DEFAULTS["fsdf_queue_suffix"] == ".flat"


def test_a_changed_setting_counts_for_the_next_message():
    app = celery(broker="memory://")
    assert app.amqp.wire_queue("q") == "q.flat"
    app.conf.fsdf_queue_suffix = ""
    assert app.amqp.wire_queue("q") == "q"
    app.conf.update(fsdf_queue_suffix=".x")
    assert app.amqp.wire_queue("q") == "q.x"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "redis://h:1/2?socket_connect_timeout=4.0&socket_timeout=4.0"),
        ({"broker_connection_timeout": 0}, "redis://h:1/2"),
        (
            {"broker_transport_options": {"socket_timeout": 9, "socket_connect_timeout": 2}},
            "redis://h:1/2?socket_connect_timeout=2.0&socket_timeout=9.0",
        ),
        (
            {"broker_use_ssl": {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_ca_certs": "/a b"}},
            "rediss://h:1/2?socket_connect_timeout=4.0&socket_timeout=4.0&ssl_ca_certs=/a%20b&ssl_cert_reqs=none",
        ),
        (
            {"broker_use_ssl": {"ssl_cert_reqs": "CERT_REQUIRED"}},
            "rediss://h:1/2?socket_connect_timeout=4.0&socket_timeout=4.0&ssl_cert_reqs=required",
        ),
    ],
)
def test_settings_of_connections_reach_the_engine(settings, url):
    conf = celery(broker="redis://h:1/2", **settings).conf
    assert engine_place(conf) == {"broker_kind": "redis_ack", "broker_url": url}


def test_what_a_url_says_itself_is_stronger():
    url = "redis://h/0?socket_connect_timeout=1&socket_timeout=2"
    assert engine_place(celery(broker=url).conf)["broker_url"] == url
    assert engine_place(celery(broker=url).conf, "memory://") == {"broker_kind": "memory"}


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (None, {"broker_kind": "sqlite"}),
        ("memory://", {"broker_kind": "memory"}),
        ("sqlite:////x/y", {"broker_kind": "sqlite", "broker_url": "sqlite:////x/y"}),
        ("sqla+sqlite:///y", {"broker_kind": "sqlite", "broker_url": "sqlite:///y"}),
        (
            "sqla+postgresql+psycopg2://u:p@h/d?sslmode=require",
            {
                "broker_kind": "sqlalchemy",
                "broker_url": "postgresql+psycopg2://u:p@h/d?sslmode=require",
            },
        ),
        ("sqla+mysql://h/d", {"broker_kind": "sqlalchemy", "broker_url": "mysql://h/d"}),
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
    assert [rank("amqp://h//", n) for n in numbers] == list(numbers)
    assert [rank(None, n) for n in numbers] == list(numbers)


@pytest.mark.parametrize(
    "url",
    ["qpid://guest@localhost//", "sqs://", "redis://a;redis://b", "amqp://a;redis://b", ["x"]],
)
def test_other_transports_are_refused_by_name(url):
    with pytest.raises(ImproperlyConfigured, match="broker_url"):
        broker_options(url)


@pytest.mark.parametrize(
    "zone", [None, "UTC", "Asia/Shanghai", "Europe/Berlin", "America/St_Johns"]
)
@pytest.mark.parametrize("utc", [True, False])
def test_now_is_told_in_the_zone_of_the_app(zone, utc):
    app = Celery("x", set_as_current=False)
    app.conf.update(timezone=zone, enable_utc=utc)
    before = datetime.now(timezone.utc)
    now = app.now()
    assert before <= now <= datetime.now(timezone.utc)
    assert now.tzinfo is app.timezone
    assert now.utcoffset() == before.astimezone(app.timezone).utcoffset()


def test_a_setting_that_is_not_there_has_its_default_also_by_its_full_name():
    class Source:
        CELERY_TASK_SERIALIZER = "json"

    with Celery("proj", set_as_current=False, fixups=[]) as app:
        app.config_from_object(Source, namespace="CELERY")
        assert app.conf.get("CELERY_NO_SUCH_ONE", 5) == 5
        assert app.conf.get("no_such_one") is None
