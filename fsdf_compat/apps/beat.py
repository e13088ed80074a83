"""`app.Beat`: beat as a program."""

from __future__ import annotations

import numbers
import socket
import sys
from datetime import datetime
from typing import Any

from .. import VERSION_BANNER, beat, platforms
from .._app.places import broker_of
from .._app.urls import sanitize_url
from ..utils.imports import qualname
from ..utils.log import LOG_LEVELS, get_logger
from ..utils.time import humanize_seconds

__all__ = ["Beat"]
logger = get_logger("celery.beat")


class Beat:
    """A scheduler in the foreground, with its log, its PID file and its signals."""

    Service = beat.Service
    app: Any = None

    def __init__(
        self,
        max_interval: float | None = None,
        app: Any = None,
        socket_timeout: float = 30,
        pidfile: str | None = None,
        no_color: bool | None = None,
        loglevel: Any = "WARN",
        logfile: str | None = None,
        schedule: str | None = None,
        scheduler: Any = None,
        scheduler_cls: Any = None,
        redirect_stdouts: bool | None = None,
        redirect_stdouts_level: str | None = None,
        quiet: bool = False,
        remote_control: bool | None = None,
        hostname: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.app = app = app or self.app
        self.loglevel, self.logfile, self.pidfile = loglevel, logfile, pidfile
        self.schedule = app.either("beat_schedule_filename", schedule)
        self.scheduler_cls = app.either("beat_scheduler", scheduler, scheduler_cls)
        self.redirect_stdouts = app.either("worker_redirect_stdouts", redirect_stdouts)
        self.redirect_stdouts_level = app.either(
            "worker_redirect_stdouts_level", redirect_stdouts_level
        )
        self.quiet, self.remote_control, self.hostname = quiet, remote_control, hostname
        self.max_interval, self.socket_timeout = max_interval, socket_timeout
        self.no_color = no_color
        enabled = not no_color if no_color is not None else no_color
        self.colored = app.log.colored(self.logfile, enabled=enabled)
        if not isinstance(self.loglevel, numbers.Integral):
            self.loglevel = LOG_LEVELS[self.loglevel.upper()]

    def run(self) -> None:
        """Send what is due until the process is told to end. Blocks.

        Raises:
            ImproperlyConfigured: there is no such broker.
        """
        broker_of(self.app)
        if not self.quiet:
            print(self.colored.cyan(f"celery beat v{VERSION_BANNER} is starting."))
        self.init_loader()
        self.set_process_title()
        self.start_scheduler()

    def setup_logging(self, colorize: bool | None = None) -> None:
        """Set up the log."""
        if colorize is None and self.no_color is not None:
            colorize = not self.no_color
        self.app.log.setup(
            self.loglevel,
            self.logfile,
            self.redirect_stdouts,
            self.redirect_stdouts_level,
            colorize=colorize,
        )

    def start_scheduler(self) -> None:
        """Show what runs, and run it."""
        if self.pidfile:
            platforms.create_pidlock(self.pidfile)
        service = self.Service(
            app=self.app,
            max_interval=self.max_interval,
            scheduler_cls=self.scheduler_cls,
            schedule_filename=self.schedule,
            remote_control=self.remote_control,
            hostname=self.hostname,
        )
        if not self.quiet:
            print(self.banner(service))
        self.setup_logging()
        if self.socket_timeout:
            logger.debug("Setting default socket timeout to %r", self.socket_timeout)
            socket.setdefaulttimeout(self.socket_timeout)
        try:
            self.install_sync_handler(service)
            service.start()
        except Exception as error:
            logger.critical("beat raised exception %s: %r", type(error), error, exc_info=True)
            raise

    def banner(self, service: beat.Service) -> str:
        """Return what is shown at the start."""
        c = self.colored
        wave = c.blue("__    ", c.magenta("-"), c.blue("    ... __   "), c.magenta("-"))
        return str(wave) + str(c.blue("        _\n", c.reset(self.startup_info(service))))

    def init_loader(self) -> None:
        """Import what the app needs."""
        self.app.loader.init_worker()
        self.app.finalize()

    def startup_info(self, service: beat.Service) -> str:
        """Return the settings that hold."""
        scheduler = service.get_scheduler(lazy=True)
        most = scheduler.max_interval
        lines = [
            f"LocalTime -> {datetime.now().replace(microsecond=0)}",
            "Configuration ->",
            f"    . broker -> {sanitize_url(self.app.conf.broker_url)}",
            f"    . loader -> {qualname(self.app.loader)}",
            f"    . scheduler -> {qualname(scheduler)}",
            scheduler.info,
            f"    . logfile -> {self.logfile or '[stderr]'}@%{LOG_LEVELS[self.loglevel]}",
            f"    . maxinterval -> {humanize_seconds(most)} ({most}s)",
        ]
        if service.remote_control:
            lines.append(f"    . remote control -> {beat.beat_nodename(service.hostname)}")
        return "\n".join(line for line in lines if line)

    def set_process_title(self) -> None:
        """Show in the list of processes what this is."""
        first = 2 if "manage" in sys.argv[0] else 1
        platforms.set_process_title("celery beat", info=" ".join(sys.argv[first:]))

    def install_sync_handler(self, service: beat.Service) -> None:
        """Store when tasks last ran, when a signal ends the process."""

        def sync(signum: int, frame: Any) -> None:
            service.sync()
            raise SystemExit

        platforms.signals.update(SIGTERM=sync, SIGINT=sync)
