"""The scenarios, in the order in which they run. Each is a function of (bench, run)."""

from __future__ import annotations

from collections.abc import Callable

from ..bench import Bench
from ..qps import qps
from .backlog import backlog
from .consume import consume
from .idle import idle
from .layer import layer
from .local import local
from .processes import processes
from .publish import publish
from .rabbitmq import rabbitmq
from .round_trip import round_trip
from .sql import sql

__all__ = ["SCENARIOS"]

SCENARIOS: dict[str, Callable[[Bench, int], None]] = {
    "consume": consume,
    "publish": publish,
    "round_trip": round_trip,
    "layer": layer,
    "rabbitmq": rabbitmq,
    "sql": sql,
    "idle": idle,
    "local": local,
    "processes": processes,
    "backlog": backlog,
    "qps": qps,
}
