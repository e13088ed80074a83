"""The brokers of an engine, who publishes to them, and its result stores: one each, when needed."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from .checks import fitting
from .contracts import Broker
from .core.publisher import Publisher
from .declaration import check_importing
from .registry import brokers
from .result_stores import ResultStores

if TYPE_CHECKING:
    from .config import Config
    from .options import TaskOptions

__all__ = ["Place", "Services"]
log = logging.getLogger("fsdf.engine")
Place: TypeAlias = tuple[str, str]  # the name of a broker's kind, and its URL, "" as configured


class Services:
    """Any thread."""

    def __init__(self, config: Config) -> None:
        self._config, self.results = config, ResultStores(config)
        self._brokers: dict[Place, Broker] = {}
        self._publishers: dict[int, Publisher] = {}
        self.forget()

    def kind_of(self, options: TaskOptions) -> str:
        """Return the name of the kind of a task's broker."""
        kind = options.broker_kind
        return brokers.name(self._config["BROKER_KIND"] if kind is None else kind)  # type: ignore[arg-type]

    def place_of(self, options: TaskOptions) -> Place:
        """Return what tells the broker of a task from others."""
        return self.kind_of(options), options.broker_url or ""

    def broker_of(self, options: TaskOptions) -> Broker:
        """Return the broker of a task.

        Raises:
            ConfigurationError: there is no such broker, or its client is not installed.
        """
        place = self.place_of(options)
        if broker := self._brokers.get(place):
            return broker
        cls = brokers.load(place[0])
        with self._lock:
            if place not in self._brokers:
                url = place[1] or (self._config.text(cls.setting) if cls.setting else "")
                self._brokers[place] = fitting(cls(url))
            return self._brokers[place]

    def publisher(self, broker: Broker) -> Publisher:
        """Return the publisher of a broker.

        Raises:
            ConfigurationError: this process is a child that is still importing the main module.
        """
        if found := self._publishers.get(id(broker)):
            return found
        check_importing()
        with self._lock:
            if id(broker) not in self._publishers:
                self._publishers[id(broker)] = Publisher(broker)
                with suppress(Exception):  # a handler of the user's that fails is no error of ours
                    log.info("pushing to %s", self.where(broker))
            return self._publishers[id(broker)]

    def where(self, broker: Broker) -> str:
        """Return a broker's kind and place, fit to be shown."""
        kinds = (name for (name, _), known in self._brokers.items() if known is broker)
        return f"{next(kinds, '')} {broker.address}".strip()

    def close(self) -> None:
        """Free every connection; all can be made again."""
        with self._lock:
            self.results.close()
            for broker in self._brokers.values():
                broker.close()
            self._clear()

    def forget(self) -> None:
        """Forget all, unclosed: after a fork it is the parent's."""
        self._lock = threading.RLock()
        self.results.clear()
        self._clear()

    def _clear(self) -> None:
        self._brokers.clear()
        self._publishers.clear()
        self.epoch = object()  # changes when brokers and stores are made anew
