"""A TCP proxy that can hold everything back, or cut what is open; in a thread of its own."""

from __future__ import annotations

import asyncio
import ssl
import threading

__all__ = ["Proxy"]


class Proxy:
    """Listens on a free port of the loopback interface and passes on to `target`.

    With `tls` it speaks that to who connects, and plainly to the target.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self._target, self._tls, self._open = target, tls, set()
        self.deaf = 0  # so many answers of the server are lost, with their connections
        self._flowing: asyncio.Event
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()

    def stall(self) -> None:
        """Hold back all bytes, both ways; connections stay open."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """Pass on what was held back, and all that follows."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def cut(self) -> None:
        """Close every connection; new ones are welcome."""
        self._loop.call_soon_threadsafe(lambda: [writer.close() for writer in self._open])

    def close(self) -> None:
        """End it."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._loop.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._open |= {writer, there[1]}
        try:
            await asyncio.gather(
                self._pass(reader, there[1]), self._pass(there[0], writer, answers=True)
            )
        finally:
            self._open -= {writer, there[1]}

    async def _pass(
        self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        try:
            while data := await source.read(1 << 16):
                await self._flowing.wait()
                if answers and self.deaf:
                    self.deaf -= 1
                    break
                to.write(data)
                await to.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            to.close()
