"""The scheduler whose entries survive in a file."""

from __future__ import annotations

import dbm
import errno
import os
import shelve
from pickle import UnpicklingError
from typing import Any

from .. import platforms
from .scheduler import Scheduler, late

__all__ = ["PersistentScheduler"]
_UNREADABLE = (KeyError, UnicodeDecodeError, TypeError, UnpicklingError, ValueError)
_UNWRITABLE = (KeyError, UnicodeDecodeError, TypeError, UnpicklingError, *dbm.error)


class PersistentScheduler(Scheduler):
    """Keeps when its entries last ran in a file of `shelve`, the same that Celery writes."""

    persistence: Any = shelve
    known_suffixes = ("", ".db", ".dat", ".bak", ".dir")
    _store: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.schedule_filename: Any = kwargs.get("schedule_filename")
        super().__init__(*args, **kwargs)

    def _remove_db(self) -> None:
        for suffix in self.known_suffixes:
            with platforms.ignore_errno(errno.ENOENT):
                os.remove(self.schedule_filename + suffix)

    def _open_schedule(self) -> Any:
        return self.persistence.open(self.schedule_filename, writeback=True)

    def _destroy_open_corrupted_schedule(self, exc: BaseException) -> Any:
        text = "Removing corrupted schedule file %r: %r"
        late("error")(text, self.schedule_filename, exc, exc_info=True)
        self._remove_db()
        return self._open_schedule()

    def setup_schedule(self) -> None:
        """Open the file, which is begun anew if it cannot be read or is of another time zone."""
        try:
            self._store = self._open_schedule()
            self._store.keys()  # some databases show only now that they are damaged
        except Exception as error:
            self._store = self._destroy_open_corrupted_schedule(error)
        self._create_schedule()
        conf = self.app.conf
        self._reset_if_changed("tz", "Timezone", conf.timezone)
        self._reset_if_changed("utc_enabled", "UTC", conf.enable_utc)
        entries = self._store.setdefault("entries", {})
        self.merge_inplace(conf.beat_schedule)
        self.install_default_entries(self.schedule)
        facts = {"tz": conf.timezone, "utc_enabled": conf.enable_utc}
        self._store.update({"__version__": late("__version__"), **facts})
        self.sync()
        late("debug")("Current schedule:\n" + "\n".join(map(repr, entries.values())))

    def _reset_if_changed(self, key: str, title: str, value: Any) -> None:
        stored = self._store.get(key)
        if stored is not None and stored != value:
            late("warning")("Reset: %s changed from %r to %r", title, stored, value)
            self._store.clear()

    def _create_schedule(self) -> None:
        for _ in range(2):
            try:
                self._store["entries"]
            except _UNREADABLE as error:
                if isinstance(error, ValueError):
                    late("warning")("DB Reset: Cannot load the stored entries, "
                                    "recreating them from beat_schedule: %r", error)  # fmt: skip
                try:
                    self._store["entries"] = {}
                except _UNWRITABLE as worse:
                    self._store = self._destroy_open_corrupted_schedule(worse)
                    continue
            else:
                self._reset_if_old()
            break

    def _reset_if_old(self) -> None:
        for key in ("__version__", "tz", "utc_enabled"):
            if key not in self._store:
                late("warning")("DB Reset: Account for new %s field", key)
                self._store.clear()
                return

    def get_schedule(self) -> Any:
        """Return the entries by name."""
        return self._store["entries"]

    def set_schedule(self, schedule: Any) -> None:
        """Replace all entries."""
        self._store["entries"] = schedule

    def sync(self) -> None:
        """Write the file."""
        if self._store is not None:
            self._store.sync()

    def close(self) -> None:
        """Write and close the file, and free what it publishes by."""
        closed = False
        try:
            super().close()
            closed = True
        finally:
            if self._store is not None:
                self._close_store(closed)

    def _close_store(self, closed: bool) -> None:
        try:
            self._store.close()
        except Exception:
            if closed:
                raise
            late("error")("beat: Store cleanup failed after scheduler error", exc_info=True)

    @property
    def info(self) -> str:
        """What `celery beat` shows about it at its start."""
        return f"    . db -> {self.schedule_filename}"
