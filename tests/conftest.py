"""Fixtures: real servers, and an environment that neither the user nor another test has touched."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import RedisServer, until
from hypothesis import HealthCheck, settings
from own_servers import OwnServer, RabbitApi, empty_mariadb, empty_postgresql

# What steers the test run itself; every other FSDF_ variable is the user's configuration.
STEERING = {"FSDF_REQUIRE_SERVICES", "FSDF_FORCE_GENERATOR"}

# How quick an example is depends on who else uses the machine.
settings.register_profile("fsdf", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fsdf")

# A shell that starts us in the background has SIGINT ignored, which all that we start inherits.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what takes long begin first: others run beside it, and nobody waits for it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide the user's configuration, store in the test's own folder, forget the default engine.

    A worker in an earlier test may have set the level of all loggers.
    """
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("fsdf.engine").setLevel(logging.NOTSET)
    for name in list(os.environ):
        if name.startswith("FSDF_") and not name.startswith("FSDF_TEST_") and name not in STEERING:
            monkeypatch.delenv(name)
    monkeypatch.setenv("FSDF_SQLITE_PATH", str(tmp_path / "fsdf.sqlite"))
    yield
    engine = sys.modules.get("fsdf_engine.engine")
    if reset := getattr(engine, "reset_default_engine", None):
        reset()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis for the whole session: FSDF_TEST_REDIS_URL, or a private one.

    Where several processes test side by side, each has its own.
    """
    given = os.environ.get("FSDF_TEST_REDIS_URL")
    if given and "PYTEST_XDIST_WORKER" not in os.environ:
        yield given
        return
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server.url
    server.stop()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of an empty database on the session's Redis. Everything in it is deleted."""
    import redis

    with redis.Redis.from_url(redis_server) as client:
        client.flushdb()
    return redis_server


@pytest.fixture(scope="session")
def cluster_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One node that has every slot: it refuses what is not on one slot, as a large cluster does."""
    import redis

    server = RedisServer(tmp_path_factory.mktemp("cluster"), config={"cluster-enabled": "yes"})
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
    yield server
    server.stop()


@pytest.fixture
def cluster_url(cluster_node: RedisServer) -> str:
    """The URL of that cluster, emptied."""
    import redis

    with redis.Redis.from_url(cluster_node.url) as client:
        client.flushall()
    return f"redis+cluster://127.0.0.1:{cluster_node.port}"


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RedisServer]]:
    """Start a Redis that the test may stop, kill, stall and restart; options: see RedisServer."""
    started: list[RedisServer] = []

    def start(**options: object) -> RedisServer:
        server = RedisServer(tmp_path_factory.mktemp("redis"), **options)  # type: ignore[arg-type]
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()


def shared_server(name: str, variable: str) -> Iterator[dict[str, str]]:
    """Yield a server's variables for the whole session: those that are set, or a private one's.

    Where several processes test side by side they share it, and each has its own part of it.
    """
    if variable in os.environ:
        yield dict(os.environ)
        return
    server = OwnServer(name)
    try:
        server.start()
        yield server.server.variables()
    finally:
        server.close()


def own_part() -> str:
    """The name of this process's virtual host or database: unlike that of any other test run."""
    return f"fsdf_test_{os.getpid()}_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[tuple[str, RabbitApi]]:
    """The URL of a virtual host of this process, and the management interface of its server."""
    for variables in shared_server("rabbitmq", "FSDF_TEST_RABBITMQ_URL"):
        api = RabbitApi(variables["FSDF_TEST_RABBITMQ_API"])
        api("PUT", f"vhosts/{own_part()}")
        try:
            yield variables["FSDF_TEST_RABBITMQ_URL"].rstrip("/") + "/" + own_part(), api
        finally:
            api("DELETE", f"vhosts/{own_part()}")


@pytest.fixture
def rabbitmq_url(rabbitmq_server: tuple[str, RabbitApi]) -> str:
    """The URL of a virtual host without queues; consumer_timeout is 60 s there."""
    url, api = rabbitmq_server
    api.empty(own_part())
    return url


@pytest.fixture
def rabbitmq_api(rabbitmq_server: tuple[str, RabbitApi]) -> RabbitApi:
    """The management interface: `rabbitmq_api("PUT", "policies/...", {...})`."""
    return rabbitmq_server[1]


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL; its user may do everything."""
    for variables in shared_server("postgresql", "FSDF_TEST_POSTGRESQL_URL"):
        yield variables["FSDF_TEST_POSTGRESQL_URL"]


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """The URL of an empty database of this process: postgresql://user@host:port/name."""
    empty_postgresql(postgresql_server, own_part())
    return postgresql_server.rpartition("/")[0] + "/" + own_part()


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[str]:
    """The URL of a MariaDB; its user may do everything."""
    for variables in shared_server("mariadb", "FSDF_TEST_MYSQL_URL"):
        yield variables["FSDF_TEST_MYSQL_URL"]


@pytest.fixture
def mysql_url(mysql_server: str) -> str:
    """The URL of an empty database of this process: mysql://user@host:port/name."""
    empty_mariadb(mysql_server, own_part())
    return mysql_server.rpartition("/")[0] + "/" + own_part()


@pytest.fixture
def own_server() -> Iterator[Callable[[str], OwnServer]]:
    """Start a server ("rabbitmq", "postgresql", "mariadb") that the test may stop and kill."""
    started: list[OwnServer] = []

    def start(name: str) -> OwnServer:
        started.append(OwnServer(name))
        started[-1].start()
        return started[-1]

    yield start
    for server in started:
        server.close()
