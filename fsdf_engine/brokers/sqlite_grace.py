"""After an outage owners extend their leases before anybody reaps them.

While another program holds the file nobody can extend, and a process cannot know for how long that
was, but that it is no longer than it has not had the file itself. So whoever waits while there are
leases takes the file from time to time.
"""

from __future__ import annotations

import time

from .sqlite_file import SqliteFile

__all__ = ["Grace"]


class Grace:
    """What one subscription knows of outages. Of one thread."""

    def __init__(self, file: SqliteFile, lease: float) -> None:
        self._file, self._lease = file, lease
        self._patience = max(lease / 2, 1.0)  # an outage that ends leases is longer
        self._until = 0.0  # `time.monotonic`: what has ended since is not reaped before
        self._since = self._before = 0.0  # `time.time`

    def left(self) -> float:
        """Return for how many seconds nothing may be reaped."""
        return self._until - time.monotonic()

    def doubt(self) -> float:
        """Return in how many seconds a fetch has to show that the file can be written."""
        return max(0.0, self._file.free_at + 0.8 * self._patience - time.monotonic())

    def reapable(self, now: float) -> float:
        """Return the instant before which a lease must have ended. Inside of a transaction.

        What had ended when an earlier grace began has had its time.
        """
        if self._file.free_at and time.monotonic() - self._file.free_at > self._patience:
            if self.left() <= 0:
                self._before = self._since
            self._since, self._until = now, time.monotonic() + self._lease / 3 + 1.0
        return now if self.left() <= 0 else self._before
