"""Periodic tasks: entries with a schedule, and the service that sends them when they are due.

Several beats may run on one broker: who puts a mark there first sends an entry, and the others
leave it out. An entry that cannot be sent because the broker is away stays due.
"""

from __future__ import annotations

from . import __version__
from ._beat.control import NODENAME_DEFAULT, BeatPidbox, beat_nodename
from ._beat.entry import (
    BeatLazyFunc,
    ScheduleEntry,
    SchedulingError,
    _evaluate_entry_args,
    _evaluate_entry_kwargs,
)
from ._beat.persistent import PersistentScheduler
from ._beat.scheduler import DEFAULT_MAX_INTERVAL, Scheduler, event_t
from ._beat.service import EmbeddedService, Service, _Process, _Threaded
from .exceptions import reraise
from .utils.log import get_logger

__all__ = [
    "DEFAULT_MAX_INTERVAL", "NODENAME_DEFAULT", "BeatPidbox", "EmbeddedService",
    "PersistentScheduler", "ScheduleEntry", "Scheduler", "SchedulingError", "Service",
    "__version__", "_evaluate_entry_args", "_evaluate_entry_kwargs", "beat_nodename", "reraise",
]  # fmt: skip
for _part in (BeatLazyFunc, BeatPidbox, PersistentScheduler, ScheduleEntry, Scheduler, Service,
              SchedulingError, _Process, _Threaded, event_t):  # fmt: skip
    _part.__module__ = __name__  # beat's file names them so
logger = get_logger("celery.beat")
debug, info, error, warning = logger.debug, logger.info, logger.error, logger.warning
