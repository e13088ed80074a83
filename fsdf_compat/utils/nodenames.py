"""Names of nodes: `name@host`."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from kombu.entity import Exchange, Queue

from .functional import memoize
from .log import current_process_index
from .text import simple_format

__all__ = [
    "worker_direct", "gethostname", "nodename", "anon_nodename", "nodesplit", "default_nodename",
    "node_format", "host_format",
]  # fmt: skip

#: Where queues for one worker are bound.
WORKER_DIRECT_EXCHANGE = Exchange("C.dq2")
WORKER_DIRECT_QUEUE_FORMAT = "{hostname}.dq2"

NODENAME_SEP = "@"
NODENAME_DEFAULT = "celery"

gethostname: Callable[[], str] = memoize(1, Cache=dict)(socket.gethostname)


def worker_direct(hostname: Any) -> Queue:
    """Return the queue of one worker; a queue as it is."""
    if isinstance(hostname, Queue):
        return hostname
    name = WORKER_DIRECT_QUEUE_FORMAT.format(hostname=hostname)
    return Queue(name, WORKER_DIRECT_EXCHANGE, hostname)


def nodename(name: str, hostname: str) -> str:
    """Return `name@hostname`."""
    return f"{name}{NODENAME_SEP}{hostname}"


def anon_nodename(hostname: str | None = None, prefix: str = "gen") -> str:
    """Return the name of this process, which is no worker."""
    return nodename(f"{prefix}{os.getpid()}", hostname or gethostname())


def nodesplit(name: str) -> tuple[None, str] | list[str]:
    """Return name and host of a node, as a list; (None, host) if there is no name."""
    parts = name.split(NODENAME_SEP, 1)
    return parts if len(parts) == 2 else (None, parts[0])


def default_nodename(hostname: str | None, default_name: str = NODENAME_DEFAULT) -> str:
    """Return the full name of a node; what is missing is `default_name` and this host."""
    name, host = nodesplit(hostname or "")
    return nodename(name or default_name, host or gethostname())


def node_format(s: str, name: str, **extra: Any) -> str:
    """Expand %h, %n, %d, %i, %I and %p (the node itself) for a node."""
    short, host = nodesplit(name)
    return host_format(s, host, short or NODENAME_DEFAULT, p=name, **extra)


def host_format(s: str, host: str | None = None, name: str | None = None, **extra: Any) -> str:
    """Expand %h (host), %n (name), %d (domain), %i (number of the child), %I (with a dash)."""
    host = host or gethostname()
    short, _, domain = host.partition(".")
    keys: dict[str, Any] = {
        "h": host,
        "n": name or short,
        "d": domain,
        "i": _fmt_process_index,
        "I": _fmt_process_index_with_prefix,
    }
    return simple_format(s, keys | extra)


def _fmt_process_index(prefix: str = "", default: str = "0") -> str:
    index = current_process_index()
    return f"{prefix}{index}" if index else default


_fmt_process_index_with_prefix = partial(_fmt_process_index, "-", "")
