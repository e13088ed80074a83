"""The servers of the tests themselves: each starts, is emptied, and comes back after a kill."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import psutil
import psycopg
import pymysql
import pytest
from own_servers import OwnServer, RabbitApi, alive


def test_rabbitmq_gives_a_virtual_host_without_queues(
    rabbitmq_url: str, rabbitmq_api: RabbitApi
) -> None:
    vhost = urlsplit(rabbitmq_url).path[1:]
    rabbitmq_api("PUT", f"queues/{vhost}/a%2Fb", {"durable": True})
    assert [q["name"] for q in rabbitmq_api("GET", f"queues/{vhost}")] == ["a/b"]
    rabbitmq_api.empty(vhost)
    assert rabbitmq_api("GET", f"queues/{vhost}") == []


def test_postgresql_gives_an_empty_database(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("CREATE TABLE t (x int)")
        connection.execute("CREATE SCHEMA other")
    with psycopg.connect(postgresql_url) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.parametrize("turn", [1, 2])
def test_postgresql_is_emptied_between_tests(postgresql_url: str, turn: int) -> None:
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("CREATE TABLE once (x int)")


@pytest.mark.parametrize("turn", [1, 2])
def test_mariadb_is_emptied_between_tests(mysql_url: str, turn: int) -> None:
    parts = urlsplit(mysql_url)
    with pymysql.connect(
        host=parts.hostname, port=parts.port, user=parts.username, database=parts.path[1:]
    ) as connection:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE once (x int)")


@pytest.mark.parametrize("name", ["rabbitmq", "postgresql", "mariadb"])
def test_own_server_comes_back_after_a_kill_and_leaves_nothing(
    own_server: Callable[[str], OwnServer], name: str
) -> None:
    server = own_server(name)
    before = descendants(server)
    server.kill()
    assert not any(alive(process) for process in before)
    server.start()
    assert listening(server) <= {"127.0.0.1", "::1"}  # epmd has both whatever one says
    server.close()
    for port in server.server.ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert not server.folder.exists()


def descendants(server: OwnServer) -> list[psutil.Process]:
    roots = [psutil.Process(process.pid) for process in server.processes]
    return roots + [child for root in roots for child in root.children(recursive=True)]


def listening(server: OwnServer) -> set[str]:
    """Return the addresses that its processes listen on; some of them live for a moment only."""
    found = set()
    for process in descendants(server):
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add(connection.laddr.ip)
    return found
