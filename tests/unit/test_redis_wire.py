"""Bytes to and from Redis: both ways to bound a wait keep the same promises."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from fsdf_engine.brokers.redis_wire import Silence, Wire, wire_over


class OtherSocket(socket.socket):
    """Stands for those of TLS and of hubs: what the kernel would do alone passes them by."""


@pytest.fixture(params=[socket.socket, OtherSocket])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[Wire, socket.socket]]:
    ours, theirs = socket.socketpair()
    with request.param(fileno=ours.detach()) as sock, theirs:
        yield wire_over(sock, 0.05), theirs


def test_what_is_sent_and_received_is_whole(ends: tuple[Wire, socket.socket]) -> None:
    wire, theirs = ends
    theirs.sendall(b"PONG")
    assert wire.receive() == b"PONG"
    theirs.sendall(b"PONG")
    assert wire.receive(5.0) == b"PONG"
    wire.send(b"PING")
    assert theirs.recv(9) == b"PING"


def test_a_silent_server_ends_a_wait(ends: tuple[Wire, socket.socket]) -> None:
    wire, theirs = ends
    for patience in (0.0, 0.01):
        with pytest.raises(Silence):
            wire.receive(patience)
    theirs.sendall(b"late")
    assert wire.receive() == b"late"


def test_a_server_that_reads_nothing_ends_a_send(ends: tuple[Wire, socket.socket]) -> None:
    with pytest.raises(OSError):
        ends[0].send(bytes(1 << 25))


def test_an_end_is_seen_without_waiting(ends: tuple[Wire, socket.socket]) -> None:
    wire, theirs = ends
    assert not wire.has_ended()
    theirs.close()
    assert wire.has_ended()
    assert wire.receive() == wire.receive(5.0) == b""
