"""Which brokers, result stores and pools there are, by name or historic number; loaded when used.

A third party adds a broker by an entry point of the group `fsdf.brokers` (`fsdf.stores`,
`fsdf.pools`) whose value is a class, or hands the class itself to whatever takes a name. What is
built in cannot be replaced by an entry point.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from .contracts import Broker, Pool, ResultStore
from .errors import ConfigurationError, NotYetSupported
from .spelling import did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["BrokerEnum", "ConcurrentModeEnum", "Registry", "brokers", "pools", "stores"]

T = TypeVar("T")


class BrokerEnum(enum.IntEnum):
    """Where messages wait; numbers and first names are those that users have known for years."""

    RABBITMQ_AMQPSTORM = 0
    RABBITMQ_RABBITPY = 1
    REDIS = 2
    LOCAL_PYTHON_QUEUE = 3
    RABBITMQ_PIKA = 4
    MONGOMQ = 5
    PERSISTQUEUE = 6
    NSQ = 7
    KAFKA = 8
    REDIS_ACK_ABLE = 9
    SQLACHEMY = 10
    ROCKETMQ = 11
    REDIS_STREAM = 12
    ZEROMQ = 13
    RedisBrpopLpush = 14
    KOMBU = 15
    CONFLUENT_KAFKA = 16
    NATS_JETSTREAM = 17

    # Further names of the same members.
    RABBITMQ = 0
    MEMORY = 3
    MONGO = 5
    SQLITE = 6
    REDIS_ACK = 9
    SQLALCHEMY = 10
    SQL = 10
    POSTGRESQL = 10
    POSTGRES = 10
    MYSQL = 10
    MARIADB = 10
    REDIS_BRPOPLPUSH = 14
    NATS = 17


class ConcurrentModeEnum(enum.IntEnum):
    """How the runs of a worker process share it."""

    THREADING = 1
    GEVENT = 2
    EVENTLET = 3
    ASYNC = 4
    SINGLE_THREAD = 5
    PROCESSES = 6

    # Further names of the same members.
    THREADS = 1
    ASYNCIO = 4
    INLINE = 5


class Registry(Generic[T]):
    """Names of one kind of plug-in, each with the place of its class; imports it when asked.

    `table` maps a lower-case name to "module:Class". The names of one member of `numbers` are
    synonyms; one of them is in the table when this version has the plug-in.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        table: Mapping[str, str],
        contract: type[T],
        numbers: type[enum.IntEnum] | None = None,
    ) -> None:
        self.kind, self.group, self.contract = kind, group, contract
        self._table = dict(table)
        known: Mapping[str, enum.IntEnum] = numbers.__members__ if numbers else {}
        self._members = {name.lower(): member for name, member in known.items()}
        self._numbers = {int(member): member for member in known.values()}
        self._names = {m: name for name, m in self._members.items() if name in self._table}

    def names(self) -> list[str]:
        """Return the names of what is built in, and of what installed packages add."""
        return sorted({*self._table, *(point.name for point in self._entry_points())})

    def name(self, key: str | int) -> str:
        """Return the one name of what a name (in any case), number or enum member stands for.

        Raises:
            ConfigurationError: there is no such plug-in.
            NotYetSupported: this version does not have it.
        """
        member = self._member(key)
        if member is not None:
            if member not in self._names:
                raise NotYetSupported(
                    f"{self.kind} {member.name} is not in this version; there are "
                    + ", ".join(self.names())
                    + "; it comes with a later one"
                )
            return self._names[member]
        if isinstance(key, str):
            if (folded := key.strip().lower()) in self._table:
                return folded
            for point in self._entry_points():
                if point.name.lower() == folded:
                    return point.name
        hint = did_you_mean(str(key), self.names(), self._members)
        raise ConfigurationError(f"unknown {self.kind} {key!r}{hint}")

    def load(self, key: str | int | type[T]) -> type[T]:
        """Import and return the class; a class that fits the contract is returned as it is.

        Raises:
            ConfigurationError: as for `name`, or what was named is no such class.
            MissingExtra: the client library it needs is not installed.
        """
        if isinstance(key, type):
            return self._checked(key, key.__qualname__)
        name = self.name(key)
        if place := self._table.get(name):
            module, _, attribute = place.partition(":")
            return cast("type[T]", getattr(import_module(module), attribute))
        point = next(p for p in self._entry_points() if p.name == name)
        try:
            found = point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"{self.kind} {name!r} ({point.value}) cannot be loaded: {error};"
                " repair or remove the package that adds it"
            ) from error
        return self._checked(found, point.value)

    def _member(self, key: object) -> enum.IntEnum | None:
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            return None
        if isinstance(key, str) and (name := key.strip().lower()) in self._members:
            return self._members[name]
        try:
            return self._numbers.get(int(key))  # a number may be text in an environment variable
        except ValueError:
            return None

    def _entry_points(self) -> list[EntryPoint]:
        from importlib.metadata import entry_points

        points = entry_points(group=self.group)
        return [point for point in points if point.name.lower() not in self._table]

    def _checked(self, found: object, place: str) -> type[T]:
        if isinstance(found, type) and issubclass(found, self.contract):
            return found
        raise ConfigurationError(
            f"{place} is no {self.kind}; derive it from {self.contract.__name__}"
        )


brokers: Registry[Broker] = Registry(
    "broker",
    "fsdf.brokers",
    {
        "memory": "fsdf_engine.brokers.memory:MemoryBroker",
        "sqlite": "fsdf_engine.brokers.sqlite:SqliteBroker",
        "rabbitmq_amqpstorm": "fsdf_engine.brokers.rabbitmq_amqpstorm:RabbitmqAmqpstormBroker",
        "rabbitmq_rabbitpy": "fsdf_engine.brokers.rabbitmq_rabbitpy:RabbitmqRabbitpyBroker",
        "rabbitmq_pika": "fsdf_engine.brokers.rabbitmq_pika:RabbitmqPikaBroker",
        "redis": "fsdf_engine.brokers.redis_list:RedisBroker",
        "redis_ack": "fsdf_engine.brokers.redis_ack:RedisAckBroker",
        "redis_stream": "fsdf_engine.brokers.redis_stream:RedisStreamBroker",
        "redis_brpoplpush": "fsdf_engine.brokers.redis_brpoplpush:RedisBrpopLpushBroker",
        "sqlalchemy": "fsdf_engine.brokers.sql:SqlBroker",
    },
    Broker,  # type: ignore[type-abstract]
    BrokerEnum,
)

stores: Registry[ResultStore] = Registry(
    "result store",
    "fsdf.stores",
    {
        "memory": "fsdf_engine.stores.memory:MemoryStore",
        "sqlite": "fsdf_engine.stores.sqlite:SqliteStore",
        "redis": "fsdf_engine.stores.redis:RedisStore",
        "sqlalchemy": "fsdf_engine.stores.sql:SqlStore",
    },
    ResultStore,  # type: ignore[type-abstract]
)

pools: Registry[Pool] = Registry(
    "concurrent mode",
    "fsdf.pools",
    {
        "threads": "fsdf_engine.pools.threads:ThreadPool",
        "gevent": "fsdf_engine.pools.greenlets:GeventPool",
        "eventlet": "fsdf_engine.pools.greenlets:EventletPool",
        "asyncio": "fsdf_engine.pools.coroutines:AsyncioPool",
        "inline": "fsdf_engine.pools.inline:InlinePool",
        "processes": "fsdf_engine.pools.processes:ProcessPool",
    },
    Pool,  # type: ignore[type-abstract]
    ConcurrentModeEnum,
)
