"""Who of several beats on one broker sends an entry: a mark, put by the first, is the lock."""

from __future__ import annotations

import uuid
from typing import Any

from fsdf_engine import Unavailable
from fsdf_engine.contracts import Mark

from ..utils.log import get_logger

__all__ = ["Turns"]
logger = get_logger("celery.beat")
_EARLY = 0.9  # of the time until the next run: the clocks of two beats differ


class Turns:
    """The marks of one beat; where no other process can see them every turn is its own."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._token = uuid.uuid4().hex.encode()

    def take(self, entry: Any, until_next: Any) -> bool:
        """Say whether it is for us to send an entry that runs again in `until_next` seconds."""
        if (store := self._store()) is None:
            return True
        name, life = self._name(entry), max(0.05, _EARLY * _seconds(until_next))
        try:
            if name in store.marks().put([Mark(name, self._token, life)]):
                return True
            return bool(store.marks().read([name]).get(name, self._token) == self._token)
        except Unavailable:
            return True  # the message itself will say so

    def give_back(self, entry: Any) -> None:
        """Let another one send what we could not."""
        if (store := self._store()) is not None:
            try:
                store.marks().delete([self._name(entry)])
            except Unavailable:
                logger.debug("beat: the mark of %s stays until it expires", entry.name)

    def _store(self) -> Any:
        """Return the store beside the broker, if other processes see it."""
        if (engine := getattr(self._app, "engine", None)) is None:
            return None
        options = engine.remote("celery.beat", **self._app.engine_options(results=False)).options
        store = engine.replies(options).store
        return store if store.shared else None

    def _name(self, entry: Any) -> str:
        return f"celery.beat:{self._app.main or ''}:{entry.name}"


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
