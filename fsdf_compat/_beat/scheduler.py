"""The scheduler: a heap of entries, and one of them sent at each tick."""

from __future__ import annotations

import copy
import heapq
import sys
import time
import traceback
from calendar import timegm
from collections.abc import Mapping
from typing import Any, NamedTuple

from kombu.common import ignore_errors
from kombu.exceptions import OperationalError
from kombu.utils.functional import maybe_evaluate
from kombu.utils.objects import cached_property

from ..exceptions import reraise
from ..schedules import crontab
from ..utils.functional import is_numeric_value
from ..utils.log import get_logger
from ..utils.time import humanize_seconds, maybe_make_aware
from .entry import ScheduleEntry, SchedulingError, _evaluate_entry_args, _evaluate_entry_kwargs
from .turns import Turns

__all__ = ["DEFAULT_MAX_INTERVAL", "Scheduler", "event_t", "late"]
DEFAULT_MAX_INTERVAL = 300
_DRIFT = -0.010  # seconds: a little early, so that what follows is in time
_AGAIN = 2.0  # seconds until a broker that was not there is tried again


class event_t(NamedTuple):
    """When an entry is due, in Unix seconds."""

    time: float
    priority: int
    entry: Any


def late(name: str) -> Any:
    """Return what the public module has under a name now: tests and users replace it there."""
    return getattr(sys.modules[__name__.rpartition("._beat.")[0] + ".beat"], name)


class Scheduler:
    """Knows what is due, and sends it. Subclassed by schedulers that keep entries elsewhere.

    With `lazy` it is only asked about itself, and sets nothing up.
    """

    Entry: Any = ScheduleEntry
    max_interval: Any = DEFAULT_MAX_INTERVAL  # seconds between two looks at the schedule, at most
    sync_every = 3 * 60  # seconds
    sync_every_tasks: int | None = None
    _last_sync: float | None = None
    _tasks_since_sync = 0
    _unreached = False  # whether the last entry was not sent because the broker is away
    logger = get_logger("celery.beat")

    def __init__(
        self,
        app: Any,
        schedule: Any = None,
        max_interval: float | None = None,
        Producer: Any = None,
        lazy: bool = False,
        sync_every_tasks: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.app = app
        self.data = maybe_evaluate({} if schedule is None else schedule)
        self.max_interval = max_interval or app.conf.beat_max_loop_interval or self.max_interval
        self.Producer = Producer or app.amqp.Producer
        self._heap: list[event_t] | None = None
        self.old_schedulers: Any = None
        self.sync_every_tasks = (
            app.conf.beat_sync_every if sync_every_tasks is None else sync_every_tasks
        )
        self._turns = Turns(app)
        if not lazy:
            self.setup_schedule()

    # ---------------------------------------------------------------- the schedule

    def get_schedule(self) -> Any:
        """Return the entries by name."""
        return self.data

    def set_schedule(self, schedule: Any) -> None:
        """Replace all entries."""
        self.data = schedule

    schedule = property(lambda self: self.get_schedule(), lambda self, s: self.set_schedule(s))

    def setup_schedule(self) -> None:
        """Take the entries of the settings."""
        self.install_default_entries(self.data)
        self.merge_inplace(self.app.conf.beat_schedule)

    def install_default_entries(self, data: Any) -> None:
        """Have old results deleted at 4 in the morning, where the backend does not do it."""
        name, app = "celery.backend_cleanup", self.app
        entry = {"task": name, "schedule": crontab("0", "4", "*"), "options": {"expires": 43200}}
        wanted = app.conf.result_expires and not app.backend.supports_autoexpire
        self.update_from_dict({name: entry} if wanted and name not in data else {})

    def add(self, **kwargs: Any) -> Any:
        """Add an entry; the arguments are its own."""
        entry = self.Entry(app=self.app, **kwargs)
        self.schedule[entry.name] = entry
        return entry

    def _maybe_entry(self, name: str, entry: Any) -> Any:
        if isinstance(entry, self.Entry):
            entry.app = self.app
            return entry
        return self.Entry(**dict(entry, name=name, app=self.app))

    def update_from_dict(self, dict_: Mapping[str, Any]) -> None:
        """Add entries, or replace those of the same names."""
        made = {name: self._maybe_entry(name, entry) for name, entry in dict_.items()}
        self.schedule.update(made)

    def merge_inplace(self, b: Mapping[str, Any]) -> None:
        """Have the entries of `b`, and no others; those that are there keep their last run."""
        schedule = self.schedule
        for name in set(schedule) - set(b):
            schedule.pop(name, None)
        for name, fields in b.items():
            entry = self.Entry(**dict(fields, name=name, app=self.app))
            if schedule.get(name):
                schedule[name].update(entry)
            else:
                schedule[name] = entry

    def schedules_equal(self, old_schedules: Any, new_schedules: Any) -> bool:
        """Say whether two schedules have the same entries."""
        if old_schedules is None or new_schedules is None:
            return old_schedules is new_schedules
        if old_schedules.keys() != new_schedules.keys():
            return False
        return all(new_schedules.get(name) == old for name, old in old_schedules.items())

    # ---------------------------------------------------------------- ticking

    def adjust(self, n: Any, drift: float = _DRIFT) -> Any:
        """Return a wait that ends a little early."""
        return n + drift if n and n > 0 else n

    def is_due(self, entry: Any) -> tuple[bool, Any]:
        """Return (whether it is to run now, the seconds after which to ask again)."""
        return entry.is_due()

    def _ask(self, is_due: Any, entry: Any) -> tuple[bool, Any]:
        """As `is_due`; one that cannot tell keeps no other from its turn."""
        try:
            return is_due()
        except Exception:
            wait = humanize_seconds(self.max_interval)
            text = "beat: Cannot calculate the next run of %r, trying again in %s."
            late("error")(text, entry.name, wait, exc_info=True)
            return False, self.max_interval

    def _when(self, entry: Any, next_time_to_run: Any, mktime: Any = timegm) -> float:
        """Return the instant, in Unix seconds, that is so many seconds from now."""
        now = maybe_make_aware(entry.default_now())
        wait = self.adjust(next_time_to_run) or 0
        return mktime(now.utctimetuple()) + now.microsecond / 1e6 + wait

    def populate_heap(self, event_t: Any = event_t, heapify: Any = heapq.heapify) -> None:
        """Put every entry in its place in time."""
        self._heap = []
        for entry in self.schedule.values():
            due, wait = self._ask(entry.is_due, entry)
            self._heap.append(event_t(self._when(entry, 0 if due else wait) or 0, 5, entry))
        heapify(self._heap)

    def tick(
        self,
        event_t: Any = event_t,
        min: Any = min,
        heappop: Any = heapq.heappop,
        heappush: Any = heapq.heappush,
    ) -> Any:
        """Send at most one entry; return the seconds until the next tick is due."""
        if self._heap is None or not self.schedules_equal(self.old_schedulers, self.schedule):
            self.old_schedulers = copy.copy(self.schedule)
            self.populate_heap()
        heap: Any = self._heap
        if not heap:
            return self.max_interval
        event = heap[0]
        entry = event[2]
        if event[0] > (now := self._when(entry, 0)):
            return min(event[0] - now, self.max_interval)
        due, wait = self._ask(lambda: self.is_due(entry), entry)
        if (first := heappop(heap)) is not event:  # the schedule was changed meanwhile
            heappush(heap, first)
            return min(first[0] - self._when(first[2], 0), self.max_interval)
        if due:
            entry, wait = self._send(entry, wait)
            heappush(heap, event_t(self._when(entry, wait), event[1], entry))
            return wait if self._unreached else 0
        wait = wait if is_numeric_value(wait) else self.max_interval
        heappush(heap, event_t(self._when(entry, wait), event[1], entry))
        if heap[0][2] is not entry:  # another one has its turn at once
            return 0
        return min(self.adjust(wait), self.max_interval)

    def _send(self, entry: Any, wait: Any) -> tuple[Any, Any]:
        """Send an entry, unless another beat does; return it as it is then, and its next wait."""
        following = self.reserve(entry)
        self._unreached = False
        if self._turns.take(entry, wait):
            self.apply_entry(entry, producer=None)
            if self._unreached:
                self._turns.give_back(entry)
                self.schedule[entry.name] = entry  # it is still due
                return entry, min(_AGAIN, self.max_interval)
        return following, wait

    def reserve(self, entry: Any) -> Any:
        """Note that an entry runs now; return what it is after that."""
        following = self.schedule[entry.name] = next(entry)
        return following

    # ---------------------------------------------------------------- sending

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send an entry's task; what goes wrong is logged."""
        late("info")("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        try:
            result = self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:
            self._unreached = isinstance(error.__cause__, OperationalError)
            text = "Message Error: %s\n%s"
            late("error")(text, error, traceback.format_stack(), exc_info=True)
            return
        if result and hasattr(result, "id"):
            late("debug")("%s sent. id->%s", entry.task, result.id)
        else:
            late("debug")("%s sent.", entry.task)

    def apply_async(
        self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> Any:
        """Send an entry's task.

        Raises:
            SchedulingError: it could not be sent.
        """
        entry = self.reserve(entry) if advance else entry  # first: an error is not repeated
        task = self.app.tasks.get(entry.task)
        try:
            args, named = _evaluate_entry_args(entry.args), _evaluate_entry_kwargs(entry.kwargs)
            options = dict(entry.options)
            options["headers"] = {**(options.get("headers") or {}), "celery_beat_task": True}
            if task:
                return task.apply_async(args, named, producer=producer, **options)
            return self.send_task(entry.task, args, named, producer=producer, **options)
        except Exception as error:
            failed = SchedulingError(f"Couldn't apply scheduled task {entry.name}: {error}")
            failed.__cause__ = error
            reraise(SchedulingError, failed, error.__traceback__)
        finally:
            self._tasks_since_sync += 1
            if self.should_sync():
                self._do_sync()

    def send_task(self, *args: Any, **kwargs: Any) -> Any:
        """Send a task that is not registered here; as `Celery.send_task`."""
        return self.app.send_task(*args, **kwargs)

    # ---------------------------------------------------------------- keeping

    def should_sync(self) -> bool:
        """Say whether it is time to store when entries last ran."""
        last, most = self._last_sync, self.sync_every_tasks
        if not last or time.monotonic() - last > self.sync_every:
            return True
        return bool(most and self._tasks_since_sync >= most)

    def _do_sync(self) -> None:
        try:
            late("debug")("beat: Synchronizing schedule...")
            self.sync()
        finally:
            self._last_sync = time.monotonic()
            self._tasks_since_sync = 0

    def sync(self) -> None:
        """Store when entries last ran, if this scheduler keeps it."""

    def close(self) -> None:
        """Store, and free what it publishes by; both are made anew if they are used again."""
        synced = False
        try:
            self.sync()
            synced = True
        finally:
            self.__dict__.pop("producer", None)
            if (connection := self.__dict__.pop("connection", None)) is not None:
                self._release(connection, synced)

    def _release(self, connection: Any, synced: bool) -> None:
        try:
            ignore_errors(connection, connection.release)
        except Exception:
            if synced:
                raise
            late("error")("beat: Connection cleanup failed after sync error", exc_info=True)

    def _ensure_connected(self) -> Any:
        def tell(error: Any, interval: Any) -> None:
            text = "beat: Connection error: %s. Trying again in %s seconds..."
            late("error")(text, error, interval)

        most = self.app.conf.broker_connection_max_retries
        return self.connection.ensure_connection(tell, most)

    @cached_property
    def connection(self) -> Any:
        """A kombu connection, for schedulers that publish by one."""
        return self.app.connection_for_write()

    @cached_property
    def producer(self) -> Any:
        """A kombu producer, likewise."""
        return self.Producer(self._ensure_connected(), auto_declare=False)

    @property
    def info(self) -> str:
        """What `celery beat` shows about it at its start."""
        return ""
