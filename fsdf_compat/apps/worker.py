"""The worker as a program: banner, logs, signals of the system."""

from __future__ import annotations

import atexit
import logging
import os
import platform as _platform
import signal
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from kombu.utils.encoding import safe_str

from fsdf_engine import StopSignals, end_fast, masked, start_zygote, tune

from .. import platforms, signals
from .._app.unused import misspelt, without_effect
from ..app import trace
from ..bootsteps import RUN
from ..platforms import EX_FAILURE, EX_OK, check_privileges, isatty
from ..utils.debug import cry
from ..utils.imports import qualname
from ..utils.log import get_logger
from ..utils.text import pluralize
from ..worker import WorkController, state
from ..worker.consumer.tasks import FOREVER

__all__ = ("Worker",)
logger = get_logger("celery.apps.worker")
connection_logger = get_logger("celery.worker.consumer.connection")

BANNER = """\
{hostname} v{version}

{platform} {timestamp}

[config]
.> app:         {app}
.> transport:   {conninfo}
.> results:     {results}
.> concurrency: {concurrency}
.> task events: {events}

[queues]
{queues}
"""
EXTRA_INFO_FMT = """
[tasks]
{tasks}
"""
MARGIN = " -------------- "


_again: list[str] = []  # the words of the command that this process becomes at its end


@atexit.register  # among the first: so it is called after what later modules have to clean up
def _become() -> None:
    if _again:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *_again])


def safe_say(msg: str, f: Any = None) -> None:
    """Write a line to the terminal, whatever has become of the streams. Never blocks for long."""
    try:
        os.write((f or sys.__stderr__ or sys.stderr).fileno(), f"\n{msg}\n".encode())
    except (OSError, ValueError, AttributeError):  # nobody reads it
        pass


class Worker(WorkController):
    """A worker that owns its process: the first signal ends it warmly, the second coldly.

    In another thread than the main one it has no signals, and ends as `WorkController` does.
    """

    _signals: StopSignals | None = None
    _has_terminal = False
    _end_zygote: Callable[[], None] | None = None

    def on_before_init(self, quiet: bool = False, **kwargs: Any) -> None:
        """Make this process one of the app; tell `celeryd_init`."""
        self.quiet = quiet
        trace.setup_worker_optimizations(self.app, self.hostname)
        signals.celeryd_init.send(
            sender=self.hostname, instance=self, conf=self.app.conf, options=kwargs
        )
        check_privileges(self.app.conf.accept_content)

    def on_after_init(
        self, purge: bool = False, no_color: bool | None = None, redirect_stdouts: Any = None,
        redirect_stdouts_level: Any = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        """Take what is about the terminal."""
        either = self.app.either
        self.redirect_stdouts = either("worker_redirect_stdouts", redirect_stdouts)
        level = either("worker_redirect_stdouts_level", redirect_stdouts_level)
        self.redirect_stdouts_level = level
        self.purge, self.no_color = purge, no_color
        enabled = None if no_color is None else not no_color
        self.colored = self.app.log.colored(self.logfile, enabled=enabled)

    def on_init_blueprint(self) -> None:
        """Let it log."""
        self._custom_logging = self.setup_logging()
        trace.setup_worker_optimizations(self.app, self.hostname)

    def on_start(self) -> None:
        """Show what it is, and take the signals; from here on there may be other threads."""
        super().on_start()
        signals.celeryd_after_setup.send(sender=self.hostname, instance=self, conf=self.app.conf)
        if self.purge:
            self.purge_messages()
        if not self.quiet:
            self.emit_banner()
        self.set_process_status("-active-")
        if not self._custom_logging and self.redirect_stdouts:  # of children, too
            self.app.log.redirect_stdouts(self.redirect_stdouts_level)
        self.install_platform_tweaks(self)
        self._tell_unused()

    def on_consumer_ready(self, consumer: Any) -> None:
        """Tell that it is ready."""
        tune()
        connection_logger.info("Connected to %s", self.conninfo())
        signals.worker_ready.send(sender=consumer)
        logger.info("%s ready.", safe_str(self.hostname))

    # ---------------------------------------------------------------- the end

    def install_platform_tweaks(self, worker: Any) -> None:
        """Take the signals of the process, and start what forks children."""
        if threading.current_thread().name != threading.main_thread().name:
            return  # by name: eventlet has an object of its own for the main thread
        self._signals = StopSignals("SIGQUIT", "SIGHUP", "SIGUSR1")
        self._has_terminal = isatty(sys.__stdout__)
        self.pool.has_main_thread = True
        if getattr(self.pool_cls, "mode", "") == "processes" and self.pool_start_method == "fork":
            self._end_zygote = start_zygote()

    def wait(self) -> None:
        """Block until a signal comes, or it is told otherwise to end."""
        if self._signals is None:
            super().wait()
            return
        if self.pool.serve:
            self._serve(self._signals)
        while self.blueprint.state == RUN:
            state.maybe_shutdown()
            if number := self._signals.next():
                self._signalled(number)

    def _serve(self, received: StopSignals) -> None:
        """Have runs in this thread until there are no more. Another one hears the signals."""
        ended = threading.Event()

        def end() -> None:
            self.app.engine.stop(drain=state.should_terminate is None, timeout=FOREVER)
            self.pool.stop()
            ended.set()
            self.wake()

        def obey() -> None:
            while not state.is_ending():
                if number := received.next():
                    self._signalled(number)
            threading.Thread(target=end, name="celery-shutdown", daemon=True).start()
            self._end_at_once_if_told(received, ended)

        obeying = threading.Thread(target=obey, name="celery-signals", daemon=True)
        obeying.start()
        self.pool.serve()
        obeying.join()

    def _ends_nothing(self, number: int) -> bool:
        """Say whether a signal ends no run, however often it comes: process managers repeat one,
        and the other asks what every thread does, which is shown.
        """
        if asks := number == getattr(signal, "SIGUSR1", None):
            safe_say(cry())
        return asks or (number == signal.SIGTERM and os.environ.get("REMAP_SIGTERM") != "SIGQUIT")

    def _end_at_once_if_told(self, received: StopSignals, ended: threading.Event) -> None:
        while not ended.is_set():
            number = received.next()
            if number and not self._ends_nothing(number):
                safe_say("worker: Cold shutdown (MainProcess)")
                end_fast(self.app.engine.handles(), 128 + number)

    def wake(self) -> None:
        """Have it look whether it is to end. Any thread."""
        super().wake()
        if self._signals is not None:
            self._signals.tell_end()

    def _signalled(self, number: int) -> None:
        """Note what a first signal asks for."""
        if (warm := self._ends_nothing(number)) and number != signal.SIGTERM:
            return
        if number == getattr(signal, "SIGHUP", None) and not self._has_terminal:
            safe_say(f"Restarting celery worker ({' '.join(sys.argv)})")
            _again[:] = sys.orig_argv[1:]
            state.should_stop = EX_OK
            return
        remapped = number == signal.SIGTERM and not warm
        cold = remapped or number == getattr(signal, "SIGQUIT", None)
        name, how = signal.Signals(number).name, "Cold" if cold else "Warm"
        if number == signal.SIGINT:
            safe_say("worker: Hitting Ctrl+C again ends all running tasks (cold shutdown)")
        safe_say(f"worker: {how} shutdown (MainProcess)")
        code = EX_FAILURE if cold or number == signal.SIGINT else EX_OK
        signals.worker_shutting_down.send(sender=self.hostname, sig=name, how=how, exitcode=code)
        if cold:
            state.should_terminate = code
        else:
            state.should_stop = code

    def _shutdown(self, warm: bool = True) -> None:
        """End, but let a further signal cut it short. Blocks."""
        if (received := self._signals) is None:
            super()._shutdown(warm)
            return
        if not warm:
            self.wait_for_soft_shutdown()
        ended, name = threading.Event(), "celery-shutdown"
        threading.Thread(target=self._end, args=(warm, ended), name=name, daemon=True).start()
        self._end_at_once_if_told(received, ended)
        received.close()
        if self._end_zygote:
            self._end_zygote()

    def _end(self, warm: bool, ended: threading.Event) -> None:
        try:
            super()._shutdown(warm)
        except Exception:
            logger.exception("A step cannot be stopped")
        finally:
            ended.set()
            self.wake()

    # ---------------------------------------------------------------- the terminal

    def setup_logging(self, colorize: bool | None = None) -> Any:
        """Configure the logs; return whether somebody else has done so."""
        if colorize is None and self.no_color is not None:
            colorize = not self.no_color
        return self.app.log.setup(
            self.loglevel, self.logfile, redirect_stdouts=False, colorize=colorize,
            hostname=self.hostname,
        )  # fmt: skip

    def _tell_unused(self) -> None:
        """Warn once of settings that have no effect here, and of names that look misspelt."""
        for name, reason in without_effect(self.app.conf).items():
            logger.warning("the setting %s has no effect: %s", name, reason)
        for name, close in misspelt(self.app.conf).items():
            logger.warning("there is no setting %r; did you mean %r?", name, close)

    def emit_banner(self) -> None:
        """Show what the worker is."""
        shown = self.colored.cyan(" \n", self.startup_info()), self.colored.reset(self.extra_info())
        print(safe_str("".join(map(str, shown))), file=sys.__stdout__, flush=True)

    def startup_info(self, artlines: bool = True) -> str:
        """Return the banner."""
        app = self.app
        name = f"{app.main or '__main__'}:{id(app):#x} ({qualname(app.loader)})"
        slots = str(self.concurrency)
        if self.autoscale:
            slots = f"{{min={self.autoscale[1]}, max={self.autoscale[0]}}}"
        kind = self.pool_cls if isinstance(self.pool_cls, str) else self.pool_cls.__module__
        lines = BANNER.format(
            app=name,
            hostname=safe_str(self.hostname),
            timestamp=datetime.now().replace(microsecond=0),
            version="5.7.0 (fsdf)",
            conninfo=self.conninfo(),
            results=app.backend.as_uri(),
            concurrency=f"{slots} ({kind.rpartition('.')[2]})",
            platform=safe_str(_platform.platform()),
            events="OFF (there are none in this version)",
            queues=app.amqp.queues.format(indent=0, indent_first=False),
        ).splitlines()
        margin = " " * len(MARGIN) if artlines else ""
        head = MARGIN if artlines else ""
        return "\n".join([head + lines[0], *(margin + line for line in lines[1:])]) + "\n"

    def conninfo(self) -> str:
        """Return where messages wait, without passwords."""
        url = self.app.conf.broker_url
        return masked(str(url)) if url else "sqlite:// (broker_url is not set: only this machine)"

    def tasklist(
        self, include_builtins: bool = True, sep: str = "\n", int_: str = "celery."
    ) -> str:
        """Return the names of the tasks, a line each."""
        names = sorted(self.app.tasks)
        shown = [name for name in names if include_builtins or not name.startswith(int_)]
        return sep.join(f"  . {name}" for name in shown)

    def extra_info(self) -> str:
        """Return what the banner shows at INFO and below."""
        if self.loglevel is None or self.loglevel > logging.INFO:
            return ""
        return EXTRA_INFO_FMT.format(tasks=self.tasklist(self.loglevel <= logging.DEBUG))

    def purge_messages(self) -> None:
        """Delete what waits."""
        if count := self.app.control.purge():
            what = pluralize(count, "message")
            print(f"purge: Erased {count} {what} from the queue.\n", flush=True)

    def set_process_status(self, info: str) -> Any:
        """Show in the process list what it is."""
        told = f"{info} ({platforms.strargv(sys.argv)})"
        return platforms.set_mp_process_title("celeryd", info=told, hostname=self.hostname)
