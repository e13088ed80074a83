"""`fsdf run`: a worker for the tasks that modules declare."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..checks import check_shared
from ..contracts import PoolCapability
from ..core.worker import GRACE
from ..engine import Engine, default_engine
from ..errors import ConfigurationError, FsdfError, MissingExtra
from ..foreground import end_fast, tell_drain, tune, work
from ..frame_file import START_FOLDER
from ..green import active_hub
from ..log.setup import FORMATS, install_as_configured
from ..registry import pools
from ..spelling import did_you_mean
from ..stop_signals import StopSignals
from ..zygote import start_zygote
from .arguments import number
from .failures import BrokenModule
from .output import Commands

if TYPE_CHECKING:
    from ..supervisor import Supervisor
    from ..task import Task

__all__ = ["add_to", "load"]
log = logging.getLogger("fsdf.cli")
FAST = 15.0  # seconds that children have to end at a second signal
_PATCHED = {
    "gevent": "import gevent.monkey; gevent.monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


def add_to(commands: Commands) -> None:
    """Add the command."""
    run = commands.add_parser(
        "run",
        help="consume the tasks that modules declare",
        description="Import modules and consume every task they declare. SIGTERM and SIGINT let"
        " what runs come to its end; a second signal ends at once.",
    )
    run.add_argument("modules", nargs="+", metavar="MODULE_OR_FILE")
    run.add_argument(
        "-q", "--queue", action="append", default=[], help="only this queue; may be repeated"
    )
    run.add_argument("--processes", type=int, default=1, metavar="N", help="worker processes")
    run.add_argument(
        "--green", choices=("gevent", "eventlet"), help="patch the standard library at the start"
    )
    run.add_argument(
        "--grace", type=number(0, "seconds"), default=GRACE, metavar="SECONDS",
        help="how long runs may take to end (default: %(default)g)",
    )  # fmt: skip
    run.add_argument("--log-level", metavar="LEVEL", help="default: LOG_LEVEL")
    run.add_argument("--log-format", choices=FORMATS, help="default: LOG_FORMAT")
    run.set_defaults(run=_run)


def load(place: str) -> str:
    """Import a module by its name, or a file by its path; return the module's name.

    A file is imported under the name that it has in its package, so that children find it.

    Raises:
        ConfigurationError: there is no such module or file, or another module has its name.
    """
    path = Path(place)
    is_file = path.suffix == ".py" or os.sep in place
    if not is_file:
        name, folder = place, Path.cwd()
    elif path.is_file():
        name, folder = _name_of(path.absolute())
    else:
        raise ConfigurationError(f"there is no file {place}{_like(path)}")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    module = _imported(name, place, folder)
    found = getattr(module, "__file__", None)
    if is_file and not (found and path.samefile(found)):
        raise ConfigurationError(f"{place} has the name of a module, {found}; rename the file")
    return name


def _imported(name: str, place: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and (name == missing or name.startswith(f"{missing}.")):
            near = _like(folder.joinpath(*name.split(".")))
            raise ConfigurationError(
                f"there is no module {name!r} in {folder}"
                + (near or "; give a module's name or a .py file")
            ) from None
        reason = f"{type(error).__name__}: {error}"
        raise BrokenModule(f"{place} cannot be imported; {reason}") from error


def _like(path: Path) -> str:
    """Return what ends an error about a file that is not there: one beside it that is alike."""
    if path.parent.is_dir():
        beside = [file.name for file in path.parent.iterdir() if file.suffix == ".py"]
        hint = did_you_mean(path.with_suffix(".py").name, beside)
        return hint if hint.startswith("; did") else ""
    return ""


def _name_of(path: Path) -> tuple[str, Path]:
    """Return a file's dotted name, and the folder that it starts from."""
    names = [path.stem] if path.stem != "__init__" else []
    folder = path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    if any("." in name for name in names):
        raise ConfigurationError(f"{path} cannot be imported: there is a dot in its name")
    return ".".join(names), folder


def _run(options: Namespace) -> int:
    before = active_hub()
    if options.green and before is None:
        if importlib.util.find_spec(options.green) is None:
            raise MissingExtra(f'--green {options.green}: pip install "fsdf[{options.green}]"')
        _start_again(_PATCHED[options.green])
    if options.processes < 1:
        raise ConfigurationError(f"--processes {options.processes}: give at least 1")
    first = Path(options.modules[0])
    # In the environment, because it is for the children, too.
    if first.is_file():  # its configuration lies beside it, as if it were the start script
        os.environ[START_FOLDER] = str(first.absolute().parent)
    if options.log_level:
        os.environ["FSDF_LOG_LEVEL"] = options.log_level
    if options.log_format:
        os.environ["FSDF_LOG_FORMAT"] = options.log_format
    signals = StopSignals()  # before the modules: one may start its consumer itself
    modules = [load(place) for place in options.modules]
    if (hub := active_hub()) != before:  # too late: the engine's modules have their locks
        raise ConfigurationError(f"the modules patch with {hub}; say fsdf run --green {hub}")
    signals.await_greenly()
    engine = default_engine()  # after the modules: they may patch what its locks are made of
    tasks = _chosen(engine, options.queue)
    install_as_configured(engine.config)
    end_zygote = _start_zygote(tasks, options.processes)
    try:
        if options.processes == 1:
            return _work(engine, tasks, signals, options.grace)
        supervisor = _supervisor(tasks, modules, options.processes)
        return _supervise(supervisor, signals, options.grace)
    finally:
        end_zygote()


def _start_zygote(tasks: Iterable[Task[..., Any]], processes: int) -> Callable[[], None]:
    """Start one if there will be children; it must come before the first thread."""
    if processes == 1 and not any(map(_needs_children, tasks)):
        return lambda: None
    return start_zygote()


def _needs_children(task: Task[..., Any]) -> bool:
    """Say whether a task's pool starts children in the usual way."""
    pool = task.options.specify_concurrent_pool or pools.load(task.mode())
    return PoolCapability.KILLS in pool.capabilities and not task.options.process_start_method


def _start_again(first: str) -> None:
    """Replace this process by one that runs a statement before anything is imported."""
    code = f"{first}; import sys; from fsdf_engine.cli import main; sys.exit(main())"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-c", code, *sys.argv[1:]])


def _chosen(engine: Engine, queues: Sequence[str]) -> list[Task[..., Any]]:
    tasks = engine.tasks()
    known = {task.queue for task in tasks}
    for name in queues:
        if name not in known:
            raise ConfigurationError(f"no task has the queue {name!r}{did_you_mean(name, known)}")
    if not tasks:
        raise ConfigurationError(
            "no task is declared; is the module right, and is @task_deco outside of"
            " `if __name__ == '__main__'`?"
        )
    return [task for task in tasks if not queues or task.queue in queues]


def _work(engine: Engine, tasks: list[Task[..., Any]], signals: StopSignals, grace: float) -> int:
    handles = engine.consume_all(tasks, lend=True)
    tune()
    work(engine, handles, signals, grace)
    engine.close()
    return 0


def _supervisor(tasks: Sequence[Task[..., Any]], modules: list[str], processes: int) -> Supervisor:
    from ..supervisor import Supervisor

    for task in tasks:
        check_shared(task)
    for queue in sorted({task.queue for task in tasks}):
        log.info("consuming queue %s in %d processes", queue, processes)
    targets = [(task.queue, task.options.name) for task in tasks]
    return Supervisor(processes, targets=targets, modules=modules)


def _supervise(supervisor: Supervisor, signals: StopSignals, grace: float) -> int:
    supervisor.start()
    signals.take()  # the supervisor has set its own handlers
    threading.Thread(target=_watch, args=(supervisor, signals), daemon=True).start()
    if signals.next():
        supervisor.ask_stop(True, grace)
        tell_drain(grace)
        if number := signals.next():
            supervisor.ask_stop(False)
            with contextlib.suppress(FsdfError):
                if not supervisor.join(FAST):  # it hangs, in a handler of its log perhaps
                    end_fast((), 128 + number)
            return 128 + number
    supervisor.join()
    return 0


def _watch(supervisor: Supervisor, signals: StopSignals) -> None:
    """Block until the work has ended, and tell so."""
    with contextlib.suppress(FsdfError):  # who joins it next learns of it
        supervisor.join()
    signals.tell_end()
