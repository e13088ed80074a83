"""A greenlet that beats, of which one sees whether its hub was held up."""

from __future__ import annotations

import threading
import time


class Heart:
    """A greenlet that would beat each millisecond; `gaps` are what came between two beats."""

    def __enter__(self):
        self.gaps, self._stop = [], False
        self._thread = threading.Thread(target=self._beat)
        self._thread.start()
        return self

    def _beat(self):
        last = time.perf_counter()
        while not self._stop:
            time.sleep(0.001)  # how much longer it lasts is what is measured
            now = time.perf_counter()
            self.gaps.append(now - last)
            last = now

    def gap(self, share):
        """Return the gap, in seconds, that this share of all is no longer than."""
        return sorted(self.gaps)[min(len(self.gaps) - 1, int(len(self.gaps) * share))]

    def __exit__(self, *_):
        self._stop = True
        self._thread.join()
