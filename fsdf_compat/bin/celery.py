"""The command: `fsdf celery -A proj worker -P threads -c 50 -Q celery -l INFO`."""

from __future__ import annotations

import importlib
import os
import socket
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..app.base import Celery

__all__ = ["main", "parser", "run_worker"]
_COMMANDS_TO_COME = ("beat", "call", "control", "events", "inspect", "multi", "purge", "report",
                     "result", "shell", "status")  # fmt: skip

_NOT_YET_USED = ("--task-events", "--prefetch-multiplier", "--heartbeat-interval")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    _patch(given)
    return run_worker(given, None)


def _patch(given: Sequence[str]) -> None:
    """Patch for greenlets before anything else is imported, in a new interpreter if need be."""
    options, _ = parser().parse_known_args(given)
    if options.pool not in ("gevent", "eventlet"):
        return
    if "fsdf_engine" in sys.modules:  # `fsdf celery`: too late for this interpreter
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "fsdf_compat.bin.celery", *given])
    try:
        if options.pool == "gevent":
            importlib.import_module("gevent.monkey").patch_all()
        else:
            importlib.import_module("eventlet").monkey_patch()
    except ModuleNotFoundError:
        sys.exit(f'{options.pool} is not installed; pip install "fsdf[{options.pool}]"')


def run_worker(argv: Sequence[str], app: Celery | None) -> int:
    """Run `worker`, of the app that is given or that `-A` names; return the exit code. Blocks."""
    options = parser().parse_args(argv)
    if options.command in _COMMANDS_TO_COME:
        print(f"fsdf celery: {options.command} is not in this version", file=sys.stderr)
        return 2
    from fsdf_engine import FsdfError

    try:
        return _work(options, app)
    except FsdfError as error:
        print(f"fsdf celery: {error}", file=sys.stderr)
        return 2


def _work(options: Namespace, app: Celery | None) -> int:
    _prepare(options)
    from ..app.finding import find_app
    from ..app.request import NODE
    from ..apps.worker import Worker

    place = options.app or os.environ.get("CELERY_APP") or ""
    app = app or find_app(place)
    _configure(app, options)
    host = socket.gethostname()
    hostname = (options.hostname or "celery@%h").replace("%h", host).replace("%n", "celery")
    os.environ[NODE] = hostname = hostname if "@" in hostname else f"{hostname}@{host}"
    return Worker(
        app,
        place,
        hostname,
        options.pool or "",
        options.concurrency,
        _listed(options.queues),
        options.max_tasks_per_child,
        options.max_memory_per_child,
    ).run()


def _prepare(options: Namespace) -> None:
    """Go to the project's folder, and log."""
    import logging

    folder = os.path.abspath(options.workdir or os.curdir)
    os.chdir(folder)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    logging.basicConfig(
        level=options.loglevel,
        filename=options.logfile,
        format="[%(asctime)s: %(levelname)s/%(processName)s] %(message)s",
    )
    given = [n for n in _NOT_YET_USED if getattr(options, n[2:].replace("-", "_"))]
    if given:
        logging.getLogger("fsdf.celery").warning(
            "not yet used in this version: %s", ", ".join(given)
        )


def _configure(app: Celery, options: Namespace) -> None:
    """What the command line says is stronger than the app's own settings, in children too."""
    from ..apps.worker import INCLUDE

    told = {
        "CELERY_BROKER_URL": options.broker,
        "CELERY_RESULT_BACKEND": options.result_backend,
        INCLUDE: options.include,
    }
    os.environ.update({name: value for name, value in told.items() if value})
    limits = {
        "task_time_limit": options.time_limit,
        "task_soft_time_limit": options.soft_time_limit,
    }
    app.conf.update({key: seconds for key, seconds in limits.items() if seconds})


def _listed(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def parser() -> ArgumentParser:
    """Return the parser. Options that have nothing to switch off here are accepted."""
    top = ArgumentParser(prog="fsdf celery", description="Celery's worker command, run by fsdf.")
    top.add_argument("-A", "--app", help="module, or module:attribute")
    top.add_argument("-b", "--broker", metavar="URL")
    top.add_argument("--result-backend", metavar="URL")
    top.add_argument("--workdir", metavar="FOLDER")
    for name in ("-q", "--quiet", "-C", "--no-color"):
        top.add_argument(name, action="store_true", help=SUPPRESS)
    top.add_argument("command", choices=("worker", *_COMMANDS_TO_COME), metavar="worker")
    top.add_argument("-P", "--pool", metavar="POOL",
                     help="prefork, threads, gevent, eventlet or solo")  # fmt: skip
    top.add_argument("-c", "--concurrency", type=int, default=0, metavar="N")
    top.add_argument("-Q", "--queues", metavar="A,B")
    top.add_argument("-l", "--loglevel", default="WARNING", metavar="LEVEL", type=str.upper,
                     choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))  # fmt: skip
    top.add_argument("-f", "--logfile", metavar="FILE")
    top.add_argument("-n", "--hostname", metavar="NAME@HOST")
    top.add_argument("-I", "--include", metavar="MODULES")
    top.add_argument("--max-tasks-per-child", type=int, default=0, metavar="N")
    top.add_argument("--max-memory-per-child", type=int, default=0, metavar="KIB")
    top.add_argument("--soft-time-limit", type=float, metavar="SECONDS")
    top.add_argument("--time-limit", type=float, metavar="SECONDS")
    top.add_argument("-O", "--optimization", help=SUPPRESS)
    top.add_argument("-E", "--task-events", action="store_true", help=SUPPRESS)
    for name in _NOT_YET_USED[1:]:
        top.add_argument(name, help=SUPPRESS)
    for name in ("--without-gossip", "--without-mingle", "--without-heartbeat"):
        top.add_argument(name, action="store_true", help=SUPPRESS)
    return top


if __name__ == "__main__":
    sys.exit(main())
