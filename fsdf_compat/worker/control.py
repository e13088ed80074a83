"""What workers do when they are told, and answer when they are asked. Others may register more."""

from __future__ import annotations

import importlib
import io
import tempfile
from typing import Any

from kombu.utils.encoding import safe_repr

from ..exceptions import WorkerShutdown
from ..platforms import EX_OK
from ..utils import debug
from ..utils.log import get_logger
from ..utils.serialization import jsonify, strtobool
from . import state as worker_state
from ._control.panel import (
    Panel,
    control_command,
    controller_info_t,
    inspect_command,
    nok,
    ok,
)
from ._control.tasks import (
    DEFAULT_TASK_INFO_ITEMS,
    active,
    query_task,
    rate_limit,
    registered,
    reserved,
    revoke,
    revoke_by_stamped_headers,
    revoked,
    scheduled,
    terminate,
    time_limit,
)

__all__ = [
    "DEFAULT_TASK_INFO_ITEMS", "Panel", "active", "control_command", "controller_info_t",
    "inspect_command", "nok", "ok", "query_task", "rate_limit", "registered", "reserved", "revoke",
    "revoke_by_stamped_headers", "revoked", "scheduled", "terminate", "time_limit",
]  # fmt: skip
logger = get_logger("celery.worker.control")


# ------------------------------------------------------------------ about the worker


@inspect_command()
def report(state: Any) -> Any:
    """Information about the installation for bug reports."""
    return ok(state.app.bugreport())


@inspect_command(
    alias="dump_conf",
    signature="[include_defaults=False]",
    args=[("with_defaults", strtobool)],
)
def conf(state: Any, with_defaults: bool = False, **kwargs: Any) -> Any:
    """List the settings."""
    return jsonify(
        state.app.conf.table(with_defaults=with_defaults),
        keyfilter=lambda key: isinstance(key, str) and not key.startswith("__"),
        unknown_type_filter=safe_repr,
    )


@inspect_command(default_timeout=0.2)
def ping(state: Any, **kwargs: Any) -> Any:
    """Ask who is there."""
    return ok("pong")


@inspect_command()
def clock(state: Any, **kwargs: Any) -> Any:
    """Get the logical clock."""
    return {"clock": state.app.clock.value}


@inspect_command()
def stats(state: Any, **kwargs: Any) -> Any:
    """Get the worker's figures."""
    return state.consumer.controller.stats()


@inspect_command(visible=False)
def hello(state: Any, from_node: str, revoked: Any = None, **kwargs: Any) -> Any:
    """Exchange what is revoked with a worker that starts."""
    if from_node == state.hostname:
        return None
    logger.info("sync with %s", from_node)
    if revoked:
        worker_state.merge_revoked(revoked)
    worker_state.revoked.purge()
    return {"revoked": list(worker_state.revoked), "clock": state.app.clock.forward()}


@control_command()
def shutdown(state: Any, msg: str = "Got shutdown from remote", **kwargs: Any) -> Any:
    """Stop, when what runs has ended."""
    logger.warning(msg)
    raise WorkerShutdown(EX_OK)


# ------------------------------------------------------------------ queues and the pool


@inspect_command()
def active_queues(state: Any) -> Any:
    """List the queues that are consumed."""
    return [dict(queue.as_dict(recurse=True)) for queue in state.consumer.task_queues()]


@control_command(
    args=[("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)],
    signature="<queue> [exchange [type [routing_key]]]",
)
def add_consumer(
    state: Any,
    queue: str,
    exchange: str | None = None,
    exchange_type: str | None = None,
    routing_key: str | None = None,
    **options: Any,
) -> Any:
    """Consume a queue, too."""
    kind = exchange_type or "direct"
    state.consumer.add_task_queue(queue, exchange, kind, routing_key, **options)
    return ok(f"add consumer {queue}")


@control_command(args=[("queue", str)], signature="<queue>")
def cancel_consumer(state: Any, queue: str, **_: Any) -> Any:
    """Consume a queue no more."""
    state.consumer.cancel_task_queue(queue)
    return ok(f"no longer consuming from {queue}")


def _fixed(name: str, signature: str | None, args: Any) -> None:
    """Register a command for what a worker of this version cannot change while it runs."""

    def refuse(state: Any, **kwargs: Any) -> Any:
        raise ValueError(f"{name} is not in this version; start the worker with other options")

    refuse.__doc__ = "Not in this version."
    control_command(name=name, signature=signature, args=args)(refuse)


_fixed("pool_grow", "[N=1]", [("n", int)])
_fixed("pool_shrink", "[N=1]", [("n", int)])
_fixed("pool_restart", None, None)
_fixed("autoscale", "[max [min]]", [("max", int), ("min", int)])


# ------------------------------------------------------------------ events


@control_command()
def election(state: Any, id: str, topic: str, action: Any = None, **kwargs: Any) -> None:
    """Hold an election; there are none in this version."""


@control_command()
def enable_events(state: Any) -> Any:
    """Send events; there are none in this version."""
    return nok("events are not in this version")


@control_command()
def disable_events(state: Any) -> Any:
    """Send no events."""
    return ok("task events already disabled")


@control_command()
def heartbeat(state: Any) -> None:
    """Send a heartbeat; there are none in this version."""


# ------------------------------------------------------------------ memory


@inspect_command(
    default_timeout=60.0,
    args=[("type", str), ("num", int), ("max_depth", int)],
    signature="[object_type=Request] [num=200 [max_depth=10]]",
)
def objgraph(state: Any, num: int = 200, max_depth: int = 10, type: str = "Request") -> Any:
    """Draw what keeps objects alive; needs the package objgraph."""
    try:
        drawing = importlib.import_module("objgraph")
    except ImportError:
        raise ImportError("Requires the objgraph library") from None
    logger.info("Dumping graph for type %r", type)
    with tempfile.NamedTemporaryFile(prefix="cobjg", suffix=".png", delete=False) as file:
        objects = drawing.by_type(type)[:num]
        drawing.show_backrefs(
            objects, max_depth=max_depth, highlight=lambda v: v in objects, filename=file.name
        )
        return {"filename": file.name}


@inspect_command()
def memsample(state: Any, **kwargs: Any) -> Any:
    """Note how much memory there is."""
    return debug.sample_mem()


@inspect_command(args=[("samples", int)], signature="[n_samples=10]")
def memdump(state: Any, samples: int = 10, **kwargs: Any) -> Any:
    """Show how much memory there was."""
    out = io.StringIO()
    debug.memdump(file=out)
    return out.getvalue()
