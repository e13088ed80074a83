"""The result stores of an engine, and who waits for what they get: one each, made when needed."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from .contracts import Layout, Marks, ResultStore
from .registry import stores
from .replies import Replies
from .spelling import masked

if TYPE_CHECKING:
    from .config import Config
    from .options import TaskOptions

__all__ = ["ResultStores"]
log = logging.getLogger("fsdf.results")


class ResultStores:
    """Any thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.clear()

    def clear(self) -> None:
        """Forget all, unclosed: after a fork they are the parent's."""
        self._lock = threading.Lock()
        self._replies: dict[tuple[type[ResultStore], str, str], Replies] = {}

    def replies(self, options: TaskOptions, broker: str, layout: Layout | None = None) -> Replies:
        """Return what waits at the store of a task, `broker` being the name of its broker's kind.

        Raises:
            ConfigurationError: there is no such store, its client is not installed, or it knows no
                layouts.
        """
        cls, url = self._place(options, broker)
        with self._lock:
            if (cls, url, "") not in self._replies:
                self._replies[cls, url, ""] = Replies(cls(url))
                if not (self._chosen(options) or _place_of(broker)):
                    log.warning(
                        "%s keeps no results: they are in a file of this machine (%s), where no"
                        " other finds them; set RESULT_STORE, to redis for instance",
                        broker, masked(url),
                    )  # fmt: skip
            found = self._replies[cls, url, ""]
            if layout is None:
                return found
            found.store.add_layout(layout)
            made = Replies(found.store, layout.name)
            return self._replies.setdefault((cls, url, layout.name), made)

    def marks(self, options: TaskOptions, broker: str) -> Marks:
        """Return where marks about messages lie: beside the broker, wherever results are kept."""
        beside = replace(options, result_store=_beside(broker), result_url=None)
        return self.replies(beside, broker).store.marks()

    def _place(self, options: TaskOptions, broker: str) -> tuple[type[ResultStore], str]:
        """Return the class and the URL of a task's store: that of its broker, unless it says."""
        name = stores.name(self._chosen(options) or _beside(broker))
        cls = stores.load(name)
        if options.result_url:
            return cls, options.result_url
        if options.broker_url and name in broker:
            return cls, options.broker_url
        return cls, self._config.text(cls.setting) if cls.setting else ""

    def _chosen(self, options: TaskOptions) -> str:
        return options.result_store or self._config.text("RESULT_STORE")

    def close(self) -> None:
        """Free every connection; who still waits is told. They can be made again."""
        replies = list(self._replies.values())
        self.clear()
        for each in replies:
            each.close()
            each.store.close()


def _beside(broker: str) -> str:
    """Return the name of the store that keeps things where a broker does."""
    return _place_of(broker) or "sqlite"


def _place_of(broker: str) -> str:
    return next((name for name in stores.names() if broker.startswith(name)), "")
