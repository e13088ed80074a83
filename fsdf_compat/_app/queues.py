"""The queues that an app knows, by name: `app.amqp.queues`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakValueDictionary

from kombu.entity import Exchange, Queue
from kombu.utils.functional import maybe_list

from ..utils.text import indent as indented
from . import shown_by

__all__ = ["Queues"]

QUEUE_FORMAT = ".> {0.name:<16} exchange={0.exchange.name}({0.exchange.type}) key={0.routing_key}"


@shown_by("app.amqp")
class Queues(dict[str, Any]):
    """Queues by name; a worker consumes those of `consume_from`, the others are for routing.

    With `create_missing` a name that is not there becomes a queue of its own. A queue without
    exchange, routing key or highest priority gets the default one.
    """

    _consume_from: dict[str, Any] | None = None

    def __init__(
        self, queues: Any = None, default_exchange: Any = None, create_missing: bool = True,
        create_missing_queue_type: str | None = None,
        create_missing_queue_exchange_type: str | None = None, autoexchange: Any = None,
        max_priority: int | None = None, default_routing_key: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.aliases: WeakValueDictionary[str, Any] = WeakValueDictionary()
        self.default_exchange = default_exchange
        self.default_routing_key = default_routing_key
        self.create_missing = create_missing
        self.create_missing_queue_type = create_missing_queue_type
        self.create_missing_queue_exchange_type = create_missing_queue_exchange_type
        self.autoexchange = Exchange if autoexchange is None else autoexchange
        self.max_priority = max_priority
        if queues is not None and not isinstance(queues, Mapping):
            queues = {queue.name: queue for queue in queues}
        for name, queue in (queues or {}).items():
            if isinstance(queue, Queue):
                self.add(queue)
            else:
                self.add_compat(name, **queue)
        self._default_consume_from: dict[str, Any] = dict(self)

    def __getitem__(self, name: str) -> Any:
        found = self.aliases.get(name)
        return super().__getitem__(name) if found is None else found

    def __setitem__(self, name: str, queue: Any) -> None:
        if self.default_exchange and not queue.exchange:
            queue.exchange = self.default_exchange
        if not queue.routing_key:
            queue.routing_key = self.default_routing_key
        if self.max_priority is not None:
            queue.queue_arguments = queue.queue_arguments or {}
            queue.queue_arguments.setdefault("x-max-priority", self.max_priority)
        super().__setitem__(name, queue)
        if queue.alias:
            self.aliases[queue.alias] = queue

    def __missing__(self, name: str) -> Any:
        if self.create_missing:
            return self.add(self.new_missing(name))
        raise KeyError(name)

    def add(self, queue: Any, **kwargs: Any) -> Any:
        """Add a queue, given as an object, or by its name and what `Queue.from_dict` takes."""
        return self._add(queue) if isinstance(queue, Queue) else self.add_compat(queue, **kwargs)

    def add_compat(self, name: str, **options: Any) -> Any:
        """Add a queue by its name; its routing key is also known as `binding_key`."""
        options.setdefault("routing_key", options.get("binding_key"))
        if options["routing_key"] is None:
            options["routing_key"] = name
        return self._add(Queue.from_dict(name, **options))

    def _add(self, queue: Any) -> Any:
        if self.default_exchange and (queue.exchange is None or queue.exchange.name == ""):
            queue.exchange = self.default_exchange
        self[queue.name] = queue
        return queue

    def format(self, indent: int = 0, indent_first: bool = True) -> str:
        """Return what is consumed from as text, a line each."""
        lines = [QUEUE_FORMAT.format(queue) for _, queue in sorted(self.consume_from.items())]
        if not lines:
            return ""
        if indent_first:
            return indented("\n".join(lines), indent)
        return f"{lines[0]}\n{indented(chr(10).join(lines[1:]), indent)}"

    def select_add(self, queue: Any, **kwargs: Any) -> Any:
        """Add a queue that is consumed from, whatever was selected."""
        added = self.add(queue, **kwargs)
        self.consume_from[added.name] = added
        return added

    def select(self, include: str | Iterable[str] | None) -> None:
        """Consume from these queues only."""
        if include:
            chosen = [self[name] for name in maybe_list(include)]
            self._consume_from = {queue.name: queue for queue in chosen}

    def deselect(self, exclude: str | Iterable[str] | None) -> None:
        """Do not consume from these queues."""
        for name in maybe_list(exclude) or ():
            queue = self.aliases.get(name)
            self.consume_from.pop(name if queue is None else queue.name, None)

    def new_missing(self, name: str) -> Any:
        """Return the queue that a name becomes which is not there.

        Raises:
            ValueError: `task_create_missing_queue_type` is unknown.
        """
        kind, exchange_type = (
            self.create_missing_queue_type,
            self.create_missing_queue_exchange_type,
        )
        if kind not in (None, "", "classic", "quorum"):
            raise ValueError(
                f"Invalid queue type '{kind}'. Valid types are 'classic' and 'quorum'."
            )
        arguments = {"x-queue-type": kind} if kind == "quorum" else None
        exchange = Exchange(name, exchange_type) if exchange_type else self.autoexchange(name)
        return Queue(name, exchange, name, queue_arguments=arguments)

    @property
    def consume_from(self) -> dict[str, Any]:
        """The queues that a worker of this app consumes from."""
        return self._default_consume_from if self._consume_from is None else self._consume_from
