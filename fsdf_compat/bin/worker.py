"""`celery worker`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from .. import concurrency
from .._engine.resolving import ROOT
from .._engine.serving import APP, INCLUDE
from ..concurrency.base import BasePool
from ..exceptions import SecurityError
from ..platforms import EX_FAILURE, EX_OK, detached, maybe_drop_privileges
from ..utils.log import get_logger
from ..utils.nodenames import default_nodename, host_format, node_format
from .base import (
    COMMA_SEPARATED_LIST,
    LOG_LEVEL,
    CeleryDaemonCommand,
    CeleryOption,
    handle_preload_options,
)

__all__ = ["AUTOSCALE", "CELERY_BEAT", "HOSTNAME", "WORKERS_POOL", "detach", "worker"]
logger = get_logger("celery.bin.worker")


class CeleryBeat(click.ParamType):
    """Whether beat runs in the worker."""

    name = "beat"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the flag."""
        if ctx.obj.app.IS_WINDOWS and value:
            self.fail("-B does not work on Windows; run `celery beat` beside it", param, ctx)
        return value


class WorkersPool(click.Choice):
    """The name of a pool."""

    name = "pool"

    def __init__(self) -> None:
        super().__init__(concurrency.get_available_pool_names())

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return its class; `worker_pool` stands in for the default."""
        if isinstance(value, type) and issubclass(value, BasePool):
            return value
        value = super().convert(value, param, ctx)
        configured = ctx.obj.app.conf.worker_pool
        if value == "prefork" and configured:
            return concurrency.get_implementation(configured)
        return concurrency.get_implementation(value) or concurrency.get_implementation(configured)


class Hostname(click.types.StringParamType):
    """The name of a node, with its parts filled in."""

    name = "hostname"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the name."""
        return host_format(default_nodename(value))


class Autoscale(click.ParamType):
    """One or two numbers of slots."""

    name = "<min workers>, <max workers>"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return (most, fewest)."""
        if isinstance(value, tuple):
            return value
        words = value.split(",")
        if len(words) > 2:
            self.fail(f"Expected one or two whole numbers, with a comma between; got {value}")
        try:
            numbers = sorted((int(words[0]), int(words[1]) if len(words) == 2 else 0))
        except ValueError:
            self.fail(f"Expected whole numbers; got {value}")
        return numbers[1], numbers[0]


CELERY_BEAT = CeleryBeat()
WORKERS_POOL = WorkersPool()
HOSTNAME = Hostname()
AUTOSCALE = Autoscale()


def _concurrency(ctx: Any, param: Any, value: Any) -> Any:
    if not value:
        return ctx.obj.app.conf.worker_concurrency
    if value == "auto":
        return value
    if not str(value).isdecimal():
        raise click.BadParameter(f"must be a non-negative integer or 'auto', got {value!r}")
    return int(value) or ctx.obj.app.conf.worker_concurrency


def _or_configured(key: str) -> Any:
    """Return a callback: what is not given is as configured."""

    def callback(ctx: Any, param: Any, value: Any) -> Any:
        return value or getattr(ctx.obj.app.conf, key)

    return callback


def _options(group: str, *options: tuple[tuple[str, ...], dict[str, Any]]) -> Any:
    def add(command: Any) -> Any:
        for names, told in reversed(options):
            command = click.option(*names, cls=CeleryOption, help_group=group, **told)(command)
        return command

    return add


_FLAG = {"is_flag": True}
_worker_options = _options(
    "Worker Options",
    (("-n", "--hostname"), {"default": host_format(default_nodename(None)), "type": HOSTNAME,
                            "help": "Name of the node; %%h, %%n and %%d are filled in."}),
    (("-D", "--detach"), {**_FLAG, "default": False, "help": "Run in the background."}),
    (("-S", "--statedb"), {"type": click.Path(), "callback": _or_configured("worker_state_db"),
                           "help": "File that keeps what is revoked."}),
    (("-l", "--loglevel"), {"default": "WARNING", "type": LOG_LEVEL, "help": "What is logged."}),
    (("-O", "--optimization"), {"default": "default", "type": click.Choice(("default", "fair")),
                                "help": "Has no effect: work goes to whoever is free."}),
    (("--prefetch-multiplier",), {
        "type": int, "metavar": "<prefetch multiplier>", "help": "1: hold few messages ahead.",
        "callback": _or_configured("worker_prefetch_multiplier")}),
    (("--disable-prefetch",), {**_FLAG, "default": None,
                               "help": "Fetch only what a slot is free for."}),
)  # fmt: skip
_pool_options = _options(
    "Pool Options",
    (("-c", "--concurrency"), {"type": str, "metavar": "<concurrency>", "callback": _concurrency,
                               "help": "Runs at once; by default one for each processor."}),
    (("-P", "--pool"), {"default": "prefork", "type": WORKERS_POOL, "help": "Where runs are."}),
    (("-E", "--task-events", "--events"), {**_FLAG, "default": None, "help": "Send events."}),
    (("--time-limit",), {"type": float, "help": "Seconds after which a run is ended."}),
    (("--soft-time-limit",), {"type": float, "help": "Seconds after which it is told so."}),
    (("--max-tasks-per-child",), {"type": int, "help": "Runs after which a child is replaced."}),
    (("--pool-start-method",), {"type": click.Choice(["fork", "spawn"]),
                                "help": "How children are started."}),
    (("--max-memory-per-child",), {"type": int,
                                   "help": "KiB after which a child is replaced."}),
)  # fmt: skip
_queue_options = _options(
    "Queue Options",
    (("--purge", "--discard"), {**_FLAG, "help": "Delete what waits, first."}),
    (("--queues", "-Q"), {"type": COMMA_SEPARATED_LIST, "help": "What to consume."}),
    (("--exclude-queues", "-X"), {"type": COMMA_SEPARATED_LIST, "help": "What not to consume."}),
    (("--include", "-I"), {"type": COMMA_SEPARATED_LIST, "help": "More modules with tasks."}),
)  # fmt: skip
_features = _options(
    "Features",
    (("--without-gossip",), {**_FLAG, "help": "Has no effect: there is none."}),
    (("--without-mingle",), {**_FLAG, "help": "Has no effect: there is none."}),
    (("--without-heartbeat",), {**_FLAG, "help": "Has no effect: leases are renewed anyway."}),
    (("--heartbeat-interval",), {"type": int, "help": "Has no effect."}),
    (("--autoscale",), {"type": AUTOSCALE, "help": "MAX,MIN slots: as work needs."}),
)  # fmt: skip
_beat_options = _options(
    "Embedded Beat Options",
    (("-B", "--beat"), {**_FLAG, "type": CELERY_BEAT, "help": "Run beat in this worker."}),
    (("-s", "--schedule-filename", "--schedule"), {
        "callback": _or_configured("beat_schedule_filename"), "help": "Beat's file."}),
    (("--scheduler",), {"help": "Beat's scheduler."}),
)  # fmt: skip


def detach(
    path: str, argv: list[str], logfile: Any = None, pidfile: Any = None, uid: Any = None,
    gid: Any = None, umask: Any = None, workdir: Any = None, fake: Any = False, app: Any = None,
    executable: str | None = None, hostname: Any = None,
) -> int:  # fmt: skip
    """Go to the background, and become the command there."""
    logfile = node_format(logfile, hostname)
    fake = bool(os.environ.get("C_FAKEFORK")) or fake
    with detached(logfile, pidfile, uid, gid, umask, workdir, fake, after_forkers=False):
        try:
            os.execv(executable or path, [executable or path, *argv])
        except Exception:
            logger.critical("Can't exec %r", " ".join([path, *argv]), exc_info=True)
            return EX_FAILURE
    return EX_OK


def _argv() -> list[str]:
    """Return the arguments of this command as it runs in the background."""
    words = iter(sys.argv[1:])
    kept = ["-m", __name__.partition(".")[0]]
    for place, word in enumerate(words):
        if word in ("--uid", "--gid"):  # it is somebody else by then
            next(words, None)
        elif word in ("-D", "--detach") or word.startswith(("--uid=", "--gid=")):
            continue
        elif place or word != "celery":  # of `fsdf celery`
            kept.append(word)
    return kept


def _tell_children(ctx: Any, include: Any) -> None:
    """Tell children that are not forked which app it is, and where its project is."""
    place = ctx.parent.params.get("app") if ctx.parent else None
    if isinstance(place, str):
        os.environ[APP] = place
    os.environ[INCLUDE] = ",".join(include or ())
    os.environ.setdefault(ROOT, os.getcwd())


@click.command(cls=CeleryDaemonCommand, context_settings={"allow_extra_args": True})
@_worker_options
@_pool_options
@_queue_options
@_features
@_beat_options
@click.pass_context
@handle_preload_options
def worker(
    ctx: Any, hostname: Any = None, pool_cls: Any = None, app: Any = None, uid: Any = None,
    gid: Any = None, loglevel: Any = None, logfile: Any = None, pidfile: Any = None,
    statedb: Any = None, **kwargs: Any,
) -> Any:  # fmt: skip
    """Run a worker.

    What follows on `--` are settings of it: `-- prefetch_multiplier=1`.
    """
    app = ctx.obj.app
    if kwargs.get("disable_prefetch") is not None:
        app.conf.worker_disable_prefetch = kwargs.pop("disable_prefetch")
    if ctx.args:
        try:
            app.config_from_cmdline(ctx.args, namespace="worker")
        except (KeyError, ValueError) as error:
            text = f"Unable to parse extra configuration from command line.\nReason: {error}"
            raise click.UsageError(text, ctx=ctx) from error
    if kwargs.get("detach"):
        where = {key: kwargs.get(key) for key in ("umask", "workdir", "executable")}
        about = {"logfile": logfile, "pidfile": pidfile, "uid": uid, "gid": gid, "app": app}
        return detach(sys.executable, _argv(), hostname=hostname, **about, **where)
    maybe_drop_privileges(uid=uid, gid=gid)
    _tell_children(ctx, kwargs.get("include"))
    try:
        made = app.Worker(
            hostname=hostname, pool_cls=pool_cls, loglevel=loglevel, logfile=logfile,
            pidfile=node_format(pidfile, hostname), statedb=node_format(statedb, hostname),
            no_color=ctx.obj.no_color, quiet=ctx.obj.quiet, **kwargs,
        )  # fmt: skip
        made.start()
    except SecurityError as error:
        ctx.obj.error(error.args[0])
        ctx.exit(1)
    return ctx.exit(made.exitcode)
