"""Of equal events the first few are told one by one, of the rest only how many they are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass

__all__ = ["FEW", "Storm", "Storms"]
FEW = 3
MOST = 1000  # kinds that are told apart


@dataclass(slots=True)
class Storm:
    """Events of one kind: `level` and `text` tell what they are."""

    level: int
    text: str
    seen: int = 0  # since it began
    untold: int = 0  # in this interval


class Storms:
    """All methods may be called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._storms: dict[Hashable, Storm] = {}

    def is_new(self, kind: Hashable, level: int, text: Callable[[], str]) -> bool:
        """Count one event; say whether it is to be told by itself. `text` says what such are."""
        with self._lock:
            if (storm := self._storms.get(kind)) is None:
                if len(self._storms) < MOST:
                    storm = self._storms[kind] = Storm(level, text())
                else:
                    many = Storm(level, "events of many kinds")
                    storm = self._storms.setdefault(None, many)
            storm.seen += 1
            storm.untold += storm.seen > FEW
            return storm.seen <= FEW

    def take(self) -> list[Storm]:
        """End an interval: return what was counted in it, and forget what has calmed down."""
        with self._lock:
            counted = [storm for storm in self._storms.values() if storm.untold]
            told = [Storm(s.level, s.text, s.seen, s.untold) for s in counted]
            self._storms = {kind: s for kind, s in self._storms.items() if s.untold}
            for storm in counted:
                storm.untold = 0
            return told
