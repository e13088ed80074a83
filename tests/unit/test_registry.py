"""Names and numbers of brokers, stores and pools."""

from __future__ import annotations

import importlib.metadata

import pytest

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.contracts import Broker
from fsdf_engine.errors import ConfigurationError
from fsdf_engine.registry import BrokerEnum, ConcurrentModeEnum, Registry, brokers, pools, stores

HISTORIC = {
    "RABBITMQ_AMQPSTORM": 0, "RABBITMQ_RABBITPY": 1, "REDIS": 2, "LOCAL_PYTHON_QUEUE": 3,
    "RABBITMQ_PIKA": 4, "MONGOMQ": 5, "PERSISTQUEUE": 6, "NSQ": 7, "KAFKA": 8, "REDIS_ACK_ABLE": 9,
    "SQLACHEMY": 10, "ROCKETMQ": 11, "REDIS_STREAM": 12, "ZEROMQ": 13, "RedisBrpopLpush": 14,
    "KOMBU": 15, "CONFLUENT_KAFKA": 16,
}  # fmt: skip


def test_historic_numbers_keep_their_meaning():
    assert {m.name: int(m) for m in BrokerEnum if m.name in HISTORIC} == HISTORIC
    assert [m.name for m in sorted(ConcurrentModeEnum)] == [
        "THREADING", "GEVENT", "EVENTLET", "ASYNC", "SINGLE_THREAD", "PROCESSES",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "key", ["memory", "Memory", "LOCAL_PYTHON_QUEUE", 3, "3", BrokerEnum.LOCAL_PYTHON_QUEUE]
)
def test_every_spelling_names_the_same_broker(key):
    assert brokers.name(key) == "memory"
    assert brokers.load(key) is MemoryBroker


@pytest.mark.parametrize("key", ["sql", "postgresql", "Postgres", "MYSQL", "mariadb", 10, "10"])
def test_sql_broker_is_known_by_the_names_of_its_servers(key):
    assert brokers.name(key) == "sqlalchemy"
    assert BrokerEnum(10).name == "SQLACHEMY", "the historic name stays the first"


@pytest.mark.parametrize(
    ("mode", "name"),
    [(1, "threads"), ("async", "asyncio"), (ConcurrentModeEnum.SINGLE_THREAD, "inline")],
)
def test_historic_modes_name_pools(mode, name):
    assert pools.name(mode) == name


def test_misspelt_name_is_answered_with_the_right_one():
    with pytest.raises(ConfigurationError, match="unknown broker 'redsi'; did you mean 'redis'?"):
        brokers.name("redsi")
    with pytest.raises(ConfigurationError, match="did you mean 'persistqueue'"):
        brokers.name("PERSIST_QUEUE")


@pytest.mark.parametrize("key", ["zzzz", 99, -1, True, "99", ""])
def test_unknown_key_lists_what_there_is(key):
    with pytest.raises(
        ConfigurationError,
        match="unknown broker .*; there are memory, rabbitmq_amqpstorm, rabbitmq_pika,",
    ):
        brokers.name(key)


def test_broker_of_another_version_is_told_from_a_misspelt_one():
    with pytest.raises(ConfigurationError, match="broker ROCKETMQ is not in this version; there"):
        brokers.load(BrokerEnum.ROCKETMQ)


def test_class_stands_for_itself():
    assert brokers.load(MemoryBroker) is MemoryBroker
    with pytest.raises(ConfigurationError, match="int is no broker; derive it from Broker"):
        brokers.load(int)


class Pulsar(MemoryBroker):
    """What another package might add."""


not_a_class = "pulsar"


@pytest.fixture
def added(monkeypatch):
    """Pretend that installed packages declare these entry points."""

    def add(**values):
        points = [
            importlib.metadata.EntryPoint(name, value, "fsdf.brokers")
            for name, value in values.items()
        ]
        monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
        return Registry("broker", "fsdf.brokers", {"memory": "nowhere:Missing"}, Broker)

    return add


def test_installed_package_adds_a_broker(added):
    registry = added(pulsar=f"{__name__}:Pulsar")
    assert registry.names() == ["memory", "pulsar"]
    assert issubclass(registry.load("PULSAR"), MemoryBroker)


def test_entry_point_cannot_replace_what_is_built_in(added):
    registry = added(memory=f"{__name__}:Pulsar")
    assert registry.names() == ["memory"]
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        registry.load("memory")


def test_broken_entry_point_names_its_place(added):
    registry = added(gone="no_such_package:Broker", odd=f"{__name__}:not_a_class")
    with pytest.raises(ConfigurationError, match=r"'gone' \(no_such_package:Broker\) cannot be"):
        registry.load("gone")
    with pytest.raises(ConfigurationError, match="not_a_class is no broker"):
        registry.load("odd")


def test_every_result_store_is_named_like_a_broker():
    assert set(stores.names()) <= set(brokers.names())
