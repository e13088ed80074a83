"""RabbitMQ's protocol by amqpstorm: its frames and its state, with a loop of ours.

Left alone, amqpstorm reads in a thread of its own, looks each 10 ms whether an answer has come, and
waits for the confirm of each message. What would wait there is replaced, for each connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..errors import FsdfError
from .amqp_client import REFUSALS, AmqpChannel, AmqpConnection, Endpoint, refused, unreachable
from .amqp_socket import FrameSocket
from .amqpstorm_channel import Library, StormChannel
from .rabbitmq import RabbitBroker

__all__ = ["RabbitmqAmqpstormBroker", "StormConnection"]
HEADER, BODY = 2, 3  # types of frames
DELIVER = b"\0\x3c\0\x3c"  # the method Basic.Deliver


class StormConnection(AmqpConnection):
    """See `AmqpConnection`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.library = Library()
        self.endpoint, self._place = endpoint, f"{endpoint.host}:{endpoint.port}"
        self._error: BaseException | None = None
        self._socket: FrameSocket | None = None
        self._blocked, self._channels = "", dict[int, StormChannel]()
        self._client = client = self.library.client.Connection(
            endpoint.host,
            endpoint.user,
            endpoint.password,
            endpoint.port,
            virtual_host=endpoint.vhost,
            heartbeat=endpoint.heartbeat,
            timeout=endpoint.timeout,
            ssl=endpoint.tls is not None,
            ssl_options={"context": endpoint.tls, "server_hostname": endpoint.host},
            client_properties={"connection_name": endpoint.name},
            lazy=True,
        )
        self._own(client)
        try:
            client.open()
        except self.library.client.AMQPError as error:
            self._error = error
            self._end()
            raise self.lost() from error
        except BaseException:
            self._end()
            raise
        self.server = client.server_properties

    def _own(self, client: Any) -> None:
        """Take the place of whatever waits, of its threads and of its timers."""
        connect, on_frame = client._io.open, client._channel0.on_frame

        def connected() -> None:
            connect()
            self._socket = FrameSocket(client._io.socket)

        def came(frame: Any) -> None:
            if frame.name == "Connection.Blocked":
                self._blocked = str(frame.reason or "an alarm")
            elif frame.name == "Connection.Unblocked":
                self._blocked = ""
            on_frame(frame)

        client._io.open, client._channel0.on_frame = connected, came
        client._io.start_inbound = lambda: None
        client._io.write_to_socket = self.write
        client.heartbeat.start = lambda exceptions: True
        client._wait_for_connection_state = self._await_state

    def _await_state(self, state: int, rpc_timeout: float = 0.0) -> None:
        client = self._client
        patience = 1.0 if state == client.CLOSED else self.endpoint.timeout
        self.until(lambda: client.current_state == state or client.exceptions, patience)
        if client.current_state != state:
            raise client.exceptions[0]

    @property
    def frame_max(self) -> int:
        """Bytes that a frame may have, as agreed with the server."""
        return self._client.max_frame_size  # type: ignore[no-any-return]

    def write(self, data: bytes) -> None:
        """Send frames. Blocks; an error is told by the next `turn`."""
        if self._error is None and self._socket is not None:
            try:
                self._socket.send(data)
            except OSError as error:
                self._error = error

    @property
    def is_open(self) -> bool:
        return self._error is None and bool(self._client.is_open)

    @property
    def blocked(self) -> str:
        return self._blocked

    def lost(self) -> FsdfError:
        """Return the error that says how the connection has ended."""
        error = self._error or next(iter(self._client.exceptions), None)
        if getattr(error, "error_code", None) in REFUSALS:
            found: FsdfError = refused(self._place, error)
        else:
            found = unreachable(self._place, error or "it has ended")
        found.__cause__ = error
        return found

    def turn(self, timeout: float) -> None:
        """Wait for the next event, and deal with it.

        Raises:
            Unavailable: the connection has ended.
            ServerRefused: the server has ended it, for it does not know us.
        """
        if self._error is None and self._socket is not None:
            try:
                patience = min(timeout, self._beat(self._socket))
                for kind, number, data in self._socket.turn(max(0.0, patience)):
                    self._came(kind, number, data)
                self._listen(self._socket)
            except Exception as error:  # of a callback of its own: nothing is sure any more
                self._error = error
        if self._error is not None or self._client.exceptions:
            raise self.lost()

    def _beat(self, socket: FrameSocket) -> float:
        """Send a heartbeat if it is time for one; return when to look again."""
        now, beat = time.monotonic(), self.endpoint.heartbeat
        if not beat:
            return float("inf")
        if now - socket.sent >= beat / 2 and self._client.is_open:
            self._client._channel0.send_heartbeat()
            socket.sent = now
        return min(socket.sent + beat / 2, socket.heard + 2 * beat) - now

    def _listen(self, socket: FrameSocket) -> None:
        """See, after what there was is read, that the server lives."""
        beat = self.endpoint.heartbeat
        if beat and time.monotonic() - socket.heard >= 2 * beat:
            raise TimeoutError(f"the server has said nothing for {2 * beat} s")

    def _came(self, kind: int, number: int, data: bytes) -> None:
        channel = self._channels.get(number)
        if kind == BODY:
            if channel is not None:
                channel.body(data[7:-1])
        elif kind == HEADER:
            if channel is not None:
                channel.header(data)
        elif data[7:11] == DELIVER:
            if channel is not None:
                channel.deliver(data)
        else:
            frame = self.library.unmarshal(data)[2]
            if number == 0:
                self._client._channel0.on_frame(frame)
            elif channel is not None:
                channel.method(frame)

    def until(self, done: Callable[[], object], timeout: float) -> None:
        """Turn until it is done.

        Raises:
            Unavailable: the connection has ended, or this has lasted for longer than `timeout`.
            ServerRefused: see `turn`.
        """
        end = time.monotonic() + timeout
        while not done():
            self.turn(end - time.monotonic())
            if time.monotonic() >= end and not done():
                self._error = TimeoutError(f"no answer within {timeout:g} s")
                raise self.lost()

    def channel(self) -> AmqpChannel:
        if not self.is_open:
            raise self.lost()
        number = self._client._get_next_available_channel_id()
        client = self.library.channel(number, self._client, self.endpoint.timeout)
        self._client._channels[number] = client
        self._channels[number] = channel = StormChannel(self, client)
        channel.open()
        return channel

    def forget(self, number: int) -> None:
        """Let the number of a channel that has ended be given again."""
        self._channels.pop(number, None)
        self._client._cleanup_channel(number)

    def wait(self, timeout: float | None) -> None:
        if (socket := self._socket) is None:
            raise self.lost()
        end = float("inf") if timeout is None else time.monotonic() + timeout
        if not socket.woken:
            self.turn(min(end - time.monotonic(), 3600.0))
        socket.woken = False

    def wake(self) -> None:
        if (socket := self._socket) is not None:
            socket.wake()

    def close(self) -> None:
        if self._socket is None:
            return
        if self.is_open:
            with suppress(Exception):
                self._client.close()
        self._end()

    def _end(self) -> None:
        self._error = self._error or ConnectionError("it was closed")
        with suppress(Exception):
            self._client._io.close()
        self.abandon()

    def abandon(self) -> None:
        socket, self._socket = self._socket, None
        self._error = self._error or ConnectionError("it is the parent's")
        if socket is not None:
            socket.close()


class RabbitmqAmqpstormBroker(RabbitBroker):
    """RabbitMQ by amqpstorm."""

    def client(self, endpoint: Endpoint) -> AmqpConnection:
        return StormConnection(endpoint)
