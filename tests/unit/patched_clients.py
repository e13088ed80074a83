"""What only a patched process shows: client libraries that block natively, beside greenlets."""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
from urllib.parse import urlsplit

import pytest
from heart import Heart

from fsdf_engine import green
from fsdf_engine.testing.pools import BOUND
from fsdf_engine.unpatched import unpatched

ROUNDS, SPELL = 5, 0.1


def natively(fn):
    """Return what `fn()` returns in a native thread of its own; only this greenlet waits."""
    values, errors = [], []

    def work():
        try:
            values.append(fn())
        except BaseException as error:
            errors.append(error)

    green.native_thread(work, "client").join(BOUND)
    if errors:
        raise errors[0]
    return values[0]


def connected(client, url):
    parts = urlsplit(url)
    return client.connect(host=parts.hostname, port=parts.port, user=parts.username)


def test_client_blocks_its_thread_only_and_from_any_thread(mysql_url):
    client = unpatched("pymysql")
    connection = natively(lambda: connected(client, mysql_url))

    def sleep():
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT SLEEP({SPELL})")
            return cursor.fetchall()

    with Heart() as heart:
        for _ in range(ROUNDS):  # each in another thread, in which a patched one would hang
            assert natively(sleep) == ((0,),)
    assert len(heart.gaps) > 50 * ROUNDS * SPELL  # it beat while the client waited
    assert heart.gap(0.99) < SPELL / 2
    natively(connection.close)


def test_copies_are_nobody_elses():
    before = [socket.socket, ssl.SSLContext, ssl.PROTOCOL_TLS.__class__, threading.Lock]
    copy = unpatched("pymysql")
    assert copy is unpatched("pymysql")
    assert copy is not sys.modules.get("pymysql")
    assert [socket.socket, ssl.SSLContext, ssl.PROTOCOL_TLS.__class__, threading.Lock] == before
    theirs = sys.modules["fsdf_unpatched.pymysql.connections"]
    assert theirs.socket.socket is not socket.socket
    assert theirs.socket.socket.__module__ == "fsdf_unpatched.socket"
    assert theirs.ssl.SSLContext is not ssl.SSLContext
    assert theirs.socket.AF_INET == socket.AF_INET


def test_many_ask_at_the_same_time_and_get_one_copy():
    found = []
    threads = [
        green.native_thread(lambda: found.append(unpatched("pymysql")), "asks") for _ in range(5)
    ]
    for thread in threads:
        thread.join(BOUND)
    assert len(found) == 5
    assert len(set(map(id, found))) == 1


def test_what_is_not_there_is_an_import_error():
    with pytest.raises(ModuleNotFoundError, match="no_such_client"):
        unpatched("no_such_client")
    with pytest.raises(ModuleNotFoundError):
        unpatched("pymysql.no_such_part")


def test_forked_child_uses_its_copy(mysql_url):
    client = unpatched("pymysql")
    if (child := os.fork()) == 0:
        done = False
        try:
            natively(lambda: connected(client, mysql_url).close())
            done = True
        finally:
            os._exit(0 if done else 1)
    assert os.waitpid(child, 0)[1] == 0
