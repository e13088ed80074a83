"""What this worker process knows of its work: counts, what runs, what is revoked.

`should_stop` and `should_terminate`, set to an exit code, end the worker; it is woken for that.
`requests` and its sets hold what is told by `task_reserved` and its like; of messages that the
engine runs they hold nothing, so that it costs nothing: these are asked for when somebody looks.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import weakref
from collections import Counter, UserDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ..exceptions import ImproperlyConfigured, WorkerShutdown, WorkerTerminate
from ..utils.collections import LimitedSet
from ..utils.functional import LRUCache
from ..utils.log import get_logger

__all__ = (
    "SOFTWARE_INFO", "Persistent", "active_requests", "maybe_shutdown", "merge_revoked",
    "reserved_requests", "revoked", "scheduled_requests", "task_accepted", "task_ready",
    "task_reserved", "task_scheduled", "total_count",
)  # fmt: skip


logger = get_logger("celery.worker.state")


def _number(name: str, default: float) -> Any:
    """Return the number that an environment variable gives, of the default's type."""
    value = os.environ.get(name)
    try:
        return type(default)(default if value is None else value)
    except ValueError as exc:
        raise ImproperlyConfigured(f"{name}={value!r} is no {type(default).__name__}") from exc


SOFTWARE_INFO = {"sw_ident": "py-celery", "sw_ver": "5.7.0", "sw_sys": platform.system()}
REVOKES_MAX = _number("CELERY_WORKER_REVOKES_MAX", 50000)
SUCCESSFUL_MAX = _number("CELERY_WORKER_SUCCESSFUL_MAX", 1000)
REVOKE_EXPIRES = _number("CELERY_WORKER_REVOKE_EXPIRES", 10800.0)  # seconds; so the next one
SUCCESSFUL_EXPIRES = _number("CELERY_WORKER_SUCCESSFUL_EXPIRES", 10800.0)

# Called with "active" or "reserved", each returns requests that are so; of the workers here.
lookers: list[Callable[[str], Iterable[Any]]] = []


class LiveSet(weakref.WeakSet[Any]):
    """Requests of a kind: those that were added, and what is so now when somebody looks."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def _all(self) -> dict[str, Any]:
        found = {request.id: request for request in super().__iter__()}
        for look in [*lookers]:
            found.update((request.id, request) for request in look(self._kind))
        return found

    def __iter__(self) -> Iterator[Any]:
        return iter(self._all().values())

    def __len__(self) -> int:
        return len(self._all())

    def __contains__(self, request: Any) -> bool:
        return getattr(request, "id", None) in self._all()

    def __sub__(self, other: Any) -> Any:
        return {request for request in self if request not in other}


class LiveRequests(UserDict[str, Any]):
    """Requests by id: those that were put in, and what is here now when somebody looks."""

    def __getitem__(self, id: str) -> Any:
        return self.data[id] if id in self.data else self._live()[id]

    def __contains__(self, id: object) -> bool:
        return id in self.data or id in self._live()

    def __iter__(self) -> Iterator[str]:
        return iter({**self._live(), **self.data})

    def __len__(self) -> int:
        return len({**self._live(), **self.data})

    def _live(self) -> dict[str, Any]:
        kinds = ("active", "reserved")
        return {r.id: r for look in [*lookers] for kind in kinds for r in look(kind)}


requests = LiveRequests()
reserved_requests = LiveSet("reserved")
active_requests = LiveSet("active")
scheduled_requests = LiveSet("scheduled")  # for an eta
successful_requests = LimitedSet(maxlen=SUCCESSFUL_MAX, expires=SUCCESSFUL_EXPIRES)
total_count: Counter[str] = Counter()  # of accepted messages, by task
all_total_count = [0]
revoked = LimitedSet(maxlen=REVOKES_MAX, expires=REVOKE_EXPIRES)
revoked_stamps: dict[str, Any] = {}
terminated: Any = LRUCache(limit=SUCCESSFUL_MAX)  # runs that were ended so: the signal by their id
should_stop: Any = None
should_terminate: Any = None
wakers: list[Callable[[], object]] = []  # of the workers in this process


class _State(ModuleType):
    """This module; a worker is woken when it is told to end."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        ends = value is not None and value is not False  # 0 is a code
        if ends and name in ("should_stop", "should_terminate"):
            for wake in [*wakers]:
                wake()


sys.modules[__name__].__class__ = _State


def merge_revoked(task_ids: Iterable[str] | None) -> None:
    """Add ids that were revoked elsewhere, or before a restart, as if it were now."""
    if task_ids:
        revoked.update(list(task_ids))


def reset_state() -> None:
    """Forget everything."""
    for known in (requests, reserved_requests, active_requests, scheduled_requests,
                  successful_requests, total_count, revoked, revoked_stamps):  # fmt: skip
        known.clear()
    all_total_count[:] = [0]


def is_ending() -> bool:
    """Say whether the worker has been told to end; 0 is a code like any other."""
    return any(told is not None and told is not False for told in (should_stop, should_terminate))


def maybe_shutdown() -> None:
    """Raise what ends the worker, if it has been told to end."""
    if should_terminate is not None and should_terminate is not False:
        raise WorkerTerminate(should_terminate)
    if is_ending():
        raise WorkerShutdown(should_stop)


def task_reserved(request: Any) -> None:
    """Note that a request waits for a slot."""
    requests[request.id] = request
    reserved_requests.add(request)
    scheduled_requests.discard(request)


def task_scheduled(request: Any) -> None:
    """Note that a request waits for its time."""
    if request not in reserved_requests and request not in active_requests:
        requests[request.id] = request
        scheduled_requests.add(request)


def task_accepted(request: Any, _all_total_count: list[int] | None = None) -> None:
    """Note that a request has started."""
    requests[request.id] = request
    active_requests.add(request)
    total_count.update({request.name: 1})
    (_all_total_count or all_total_count)[0] += 1


def task_ready(request: Any, successful: bool = False) -> None:
    """Note that a request has ended."""
    if successful:
        successful_requests.add(request.id)
    requests.pop(request.id, None)
    for known in (active_requests, reserved_requests, scheduled_requests):
        known.discard(request)


class Persistent:
    """Keeps revoked ids in a file between restarts (`--statedb`); it is JSON."""

    def __init__(self, state: Any, filename: str, clock: Any = None) -> None:
        self.state, self.filename, self.clock = state, Path(filename), clock
        self.merge()

    def merge(self) -> None:
        """Take over what is in the file; one that cannot be read is of somebody else."""
        try:
            saved = json.loads(self.filename.read_bytes())
            self.state.merge_revoked(map(str, saved["revoked"]))
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s is no state database of ours: %r", self.filename, error)
            return
        if self.clock:
            self.clock.adjust(saved.get("clock") or 0)

    def save(self) -> None:
        """Write what there is."""
        self.state.revoked.purge()
        now = self.clock.forward() if self.clock else 0
        told = json.dumps({"revoked": list(self.state.revoked), "clock": now})
        fresh = self.filename.with_name(f"{self.filename.name}.new")
        fresh.write_text(told)
        fresh.replace(self.filename)

    sync = close = save
