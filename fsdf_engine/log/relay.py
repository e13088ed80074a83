"""Log records of child processes: they travel to the parent, whose handlers handle them.

So what the parent has is used, whatever its class, and files have one writer. Records travel as
lines of JSON over a pair of sockets. What a child's own modules have configured otherwise than the
parent's stays in the child.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import orjson

from ..contracts import Plan
from .record import BESIDE, RunContext, dumped, logger_of, trace_text

__all__ = ["Settings", "audible", "flush", "follow", "listen", "settings", "settle"]
log = logging.getLogger("fsdf.log")
PATIENCE = 0.2  # seconds that a record waits for a parent that does not read
MOST = 1 << 20  # bytes that wait for it; what comes beyond is counted and dropped
LONGEST = 1 << 16  # characters of one text
Settings: TypeAlias = Mapping[str, Any]


# ------------------------------------------------------------------ the parent's side


def settings() -> Settings:
    """Return the levels of this process's loggers, and what their handlers are."""
    return {
        "levels": {name: logger.level for name, logger in _loggers() if logger.level},
        "handlers": {name: [*map(_kind, logger.handlers)] for name, logger in _loggers()},
    }


def listen(end: socket.socket) -> threading.Thread:
    """Handle what a child logs, in a thread that ends with the child; closes `end`."""
    thread = threading.Thread(target=_listen, args=(end,), name="fsdf-logs", daemon=True)
    thread.start()
    return thread


def _listen(end: socket.socket) -> None:
    with end, end.makefile("rb") as lines:
        try:
            for line in lines:
                _handle(line)
        except OSError:  # it was killed
            pass


def _handle(line: bytes) -> None:
    try:
        facts = orjson.loads(line)
    except ValueError:  # the child was killed in the middle of its last line
        return
    try:
        below = facts.pop("_below")
        logger = logging.getLogger(facts["name"])
        if below:  # a logger with a prefix, which is a child of ours all the same
            logger.parent = logging.getLogger("fsdf")
        logger.handle(logging.makeLogRecord(facts))
    except Exception:  # a filter of the user's; the next record is another one
        log.exception("a record of a child process cannot be handled")


# ------------------------------------------------------------------ the child's side


def follow(end: socket.socket, parent: Settings) -> None:
    """Log as the parent does; before user modules are imported, as far as that is possible."""
    for name, level in parent["levels"].items():
        logging.getLogger(name or None).setLevel(level)
    RelayHandler.ours = RelayHandler(end, parent["handlers"])
    settle()


def settle() -> None:
    """Leave to the parent what it does itself; again after user modules have been imported."""
    if (relay := RelayHandler.ours) is None:
        return
    for name, logger in _loggers():
        theirs = relay.of_parent.get(name, ())
        for handler in [*logger.handlers]:
            if _kind(handler) in theirs:
                logger.removeHandler(handler)
        if (not name or not logger.propagate) and relay not in logger.handlers:
            logger.addHandler(relay)


def flush() -> None:
    """Send the parent what it did not read before. Blocks for a second at most."""
    if RelayHandler.ours:
        RelayHandler.ours.flush()


def audible(plan: Plan, prefix: str) -> Plan:
    """Return a plan as a child runs it: its runs are told where its queue's logger is at DEBUG."""
    if not (logger := logger_of(plan.queue, prefix)).isEnabledFor(logging.DEBUG):
        return plan
    from .runs import traced  # not needed otherwise, and the first run waits for it

    return traced(plan, logger)


class RelayHandler(logging.Handler):
    """Sends records to the parent. Waits for a parent that does not read, but not for long."""

    ours: RelayHandler | None = None  # a process has one parent

    def __init__(self, end: socket.socket, of_parent: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.of_parent = of_parent  # the kinds of its handlers, by the name of the logger
        self._end, self._unsent = end, b""
        self._stuck, self._sending, self._dropped = False, False, 0
        self.addFilter(RunContext())

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; what the child's own handlers get is not sent."""
        try:
            if not any(self._is_own(h) for h in _handlers_of(record.name)):
                self._send(_encoded(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Send what could not be sent before. Blocks for a second at most."""
        self.acquire()
        try:
            self._push(1.0)
        finally:
            self.release()

    def _is_own(self, handler: logging.Handler) -> bool:
        if handler is self or type(handler) is logging.NullHandler:
            return False
        return not (handler.name or "").startswith(BESIDE)

    def _send(self, line: bytes) -> None:
        if len(self._unsent) + len(line) > MOST:
            self._dropped += 1
            self._push(0.0)
            return
        self._unsent += line
        self._push(0.0 if self._stuck else PATIENCE)

    def _push(self, timeout: float) -> None:
        if self._sending:  # we are in a signal handler, and below us this goes on
            return
        self._sending = True
        try:
            self._end.settimeout(timeout)
            while self._unsent:
                sent = self._end.send(self._unsent)
                self._unsent = self._unsent[sent:]
            self._stuck = False
        except (BlockingIOError, TimeoutError):
            self._stuck = True
        except OSError:  # the parent is dead, and we soon are
            self._unsent = b""
        finally:
            self._sending = False
        if self._dropped and not self._unsent:
            text = f"{self._dropped} log records were dropped: the parent did not read them"
            facts = {"name": log.name, "levelno": logging.WARNING, "levelname": "WARNING"}
            self._unsent = dumped({**facts, "msg": text, "_below": False}).encode() + b"\n"
            self._dropped = 0


def _encoded(record: logging.LogRecord) -> bytes:
    facts = {**vars(record), "msg": record.getMessage()[:LONGEST], "args": None}
    if record.exc_info and not record.exc_text:
        facts["exc_text"] = trace_text(record.exc_info)
    if facts["exc_text"]:
        facts["exc_text"] = facts["exc_text"][-LONGEST:]
    facts["exc_info"] = None
    parent = logging.getLogger(record.name).parent
    facts["_below"] = bool(parent and parent.name == "fsdf" and record.name[:5] != "fsdf.")
    return dumped(facts).encode() + b"\n"


# ------------------------------------------------------------------ both sides


def _loggers() -> Iterable[tuple[str, logging.Logger]]:
    named = [*logging.root.manager.loggerDict.items()]
    return [("", logging.root)] + [(n, x) for n, x in named if isinstance(x, logging.Logger)]


def _handlers_of(name: str) -> Iterator[logging.Handler]:
    logger: logging.Logger | None = logging.getLogger(name)
    while logger:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _kind(handler: logging.Handler) -> str:
    """Return what tells handlers apart, in processes that have run the same code."""
    module = {"__mp_main__": "__main__"}.get(type(handler).__module__, type(handler).__module__)
    stream = getattr(getattr(handler, "stream", None), "name", "")
    return f"{module}.{type(handler).__qualname__} {getattr(handler, 'baseFilename', stream)}"
