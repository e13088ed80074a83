"""`app.amqp`: the app's queues and routes, and how messages are made and leave.

What is published goes out as a flat message on the queue's own wire queue. Only where somebody
could see it, a receiver of a signal or a producer that is not kombu's own, it is first made a
message of Celery's protocol; what they change of it counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

from kombu import pools
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.messaging import Consumer, Producer
from kombu.utils.objects import cached_property as settable

from .. import signals
from .._app import messages, owning, publishing, watched
from .._app.messages import INT_MIN, task_message
from .._app.queues import Queues
from .._app.watched import callback_publish_max_retries as _callback_publish_max_retries
from .._app.watched import callback_publish_retry as _callback_publish_retry
from . import routes as _routes

__all__ = [
    "AMQP", "Queues", "_callback_publish_max_retries", "_callback_publish_retry", "task_message",
    "utf8dict",
]  # fmt: skip


def utf8dict(d: Mapping[Any, Any], encoding: str = "utf-8") -> dict[Any, Any]:
    """Return a mapping whose names are text."""
    return {k.decode(encoding) if isinstance(k, bytes) else k: v for k, v in d.items()}


_METHODS = frozenset({"as_task_v2", "create_task_message", "send_task_message"})


class _Usual(NamedTuple):
    """The settings that every message needs, as of one revision of `app.conf`."""

    revision: Any
    serializer: str
    suffix: str
    retry: bool
    policy: Mapping[str, Any]
    tells: bool  # events, or another protocol
    url: Any


@owning
class AMQP:
    """An app's side of the broker. Making one opens nothing."""

    Connection = BrokerConnection = Connection
    Consumer = Consumer
    Producer = Producer
    queues_cls = Queues
    autoexchange: Any = None  # what makes the exchange of a queue that is added by its name
    argsrepr_maxsize = kwargsrepr_maxsize = 1024
    _rtable: Any = None
    _producer_pool: Any = None
    _known: _Usual | None = None

    def __init__(self, app: Any) -> None:
        self.app = app
        self.task_protocols: dict[int, Any] = {1: self.as_task_v1, 2: self.as_task_v2}
        self._publishers: dict[Any, tuple[Any, Any]] = {}
        cls = type(self)
        self._is_customized = any(getattr(cls, m) is not getattr(AMQP, m) for m in _METHODS)
        self.app._conf.bind_to(self._handle_conf_update)

    as_task_v1 = messages.as_task_v1
    as_task_v2 = messages.as_task_v2
    collecting = staticmethod(publishing.collecting)
    together = publishing.together

    def create_task_message(self, *args: Any, **kwargs: Any) -> task_message:
        """Return a call as a message of the protocol that `task_protocol` names."""
        made: task_message = self.task_protocols[self.app.conf.task_protocol](*args, **kwargs)
        return made

    def _verify_seconds(self, s: Any, what: str) -> Any:
        if s < INT_MIN:
            raise ValueError(f"{what} is out of range: {s!r}")
        return s

    _retry_publish = watched.retry_publish

    # ---------------------------------------------------------------- publishing

    def usual(self) -> _Usual:
        """Return the settings that every message needs."""
        conf = self.app.conf
        known = self._known
        if known is None or known.revision is not conf.revision:
            known = self._known = _Usual(
                conf.revision,
                conf.task_serializer,
                conf.fsdf_queue_suffix or "",
                conf.task_publish_retry,
                conf.task_publish_retry_policy,
                self._sends_events() or conf.task_protocol != 2,
                conf.broker_write_url,
            )
        return known

    def wire_queue(self, queue: str) -> str:
        """Return the queue on which flat messages travel: no Celery worker reads it."""
        return f"{queue}{self.usual().suffix}"

    def publisher(self, url: Any = None) -> Any:
        """Return the engine's publisher of a broker, by default of the app's."""
        engine, url = self.app.engine, url or self.usual().url
        known = self._publishers.get(str(url))
        if known is None or known[0] is not engine.services.epoch:
            known = engine.services.epoch, publishing.placed(self.app, url)
            self._publishers[str(url)] = known
        return known[1]

    def own_connection(self) -> Any:
        """Return a connection to the app's broker that is not opened."""
        return self.producer_pool.connections.connection

    def is_watched(self) -> bool:
        """Say whether anybody could see a message of Celery's own form."""
        return bool(
            signals.before_task_publish.receivers
            or signals.after_task_publish.receivers
            or signals.task_sent.receivers
            or self.usual().tells
            or self.wants_producer()
        )

    def wants_producer(self) -> bool:
        """Say whether what publishes has been replaced, and may need kombu's producer."""
        return (
            self._is_customized
            or "producer_or_acquire" in self.app.__dict__
            or not _METHODS.isdisjoint(self.__dict__)
        )

    send_task_message = watched.send_task_message
    target = watched.target

    # ---------------------------------------------------------------- queues and routes

    def Queues(
        self, queues: Any, create_missing: Any = None, create_missing_queue_type: Any = None,
        create_missing_queue_exchange_type: Any = None, autoexchange: Any = None,
        max_priority: Any = None,
    ) -> Any:  # fmt: skip
        """Return queues by name, with the settings' defaults."""
        conf = self.app.conf

        def chosen(given: Any, key: str) -> Any:
            return conf[key] if given is None else given

        key = conf.task_default_routing_key
        if not queues and conf.task_default_queue:
            quorum = conf.task_default_queue_type == "quorum"
            usual = Queue(
                conf.task_default_queue,
                exchange=self.default_exchange,
                routing_key=key,
                queue_arguments={"x-queue-type": "quorum"} if quorum else None,
            )
            queues = (usual,)
        return self.queues_cls(
            queues,
            default_exchange=self.default_exchange,
            create_missing=chosen(create_missing, "task_create_missing_queues"),
            create_missing_queue_type=chosen(
                create_missing_queue_type, "task_create_missing_queue_type"
            ),
            create_missing_queue_exchange_type=chosen(
                create_missing_queue_exchange_type, "task_create_missing_queue_exchange_type"
            ),
            autoexchange=self.autoexchange if autoexchange is None else autoexchange,
            max_priority=chosen(max_priority, "task_queue_max_priority"),
            default_routing_key=key,
        )

    def Router(self, queues: Any = None, create_missing: Any = None) -> Any:
        """Return what finds the queue of a message."""
        missing = self.app.either("task_create_missing_queues", create_missing)
        return _routes.Router(self.routes, queues or self.queues, missing, app=self.app)

    def flush_routes(self) -> None:
        """Read the routes anew."""
        self._rtable = _routes.prepare(self.app.conf.task_routes)

    def TaskConsumer(self, channel: Any, queues: Any = None, accept: Any = None, **kw: Any) -> Any:
        """Return kombu's consumer of the app's queues, for messages of Celery's own form."""
        accept = self.app.conf.accept_content if accept is None else accept
        queues = queues or list(self.queues.consume_from.values())
        return self.Consumer(channel, accept=accept, queues=queues, **kw)

    @settable
    def queues(self) -> Any:
        """The app's queues by name; setting them makes those of a list."""
        return self.Queues(self.app.conf.task_queues)

    @queues.setter  # type: ignore[no-redef]
    def queues(self, queues: Any) -> Any:
        return self.Queues(queues)

    @cached_property
    def default_queue(self) -> Any:
        """The queue of messages that nothing else is said of."""
        return self.queues[self.app.conf.task_default_queue]

    @cached_property
    def default_exchange(self) -> Any:
        """The exchange of queues that name none."""
        conf = self.app.conf
        return Exchange(conf.task_default_exchange, conf.task_default_exchange_type)

    @property
    def routes(self) -> Any:
        """The routers of `task_routes`."""
        if self._rtable is None:
            self.flush_routes()
        return self._rtable

    @cached_property
    def router(self) -> Any:
        """What finds the queue of a message."""
        return self.Router()

    # ---------------------------------------------------------------- kombu

    @property
    def producer_pool(self) -> Any:
        """Kombu's pool of producers, for messages that are not tasks."""
        if self._producer_pool is None:
            self._producer_pool = pools.producers[self.app.connection_for_write()]
            self._producer_pool.limit = self.app.pool.limit
        return self._producer_pool

    publisher_pool = producer_pool

    @cached_property
    def utc(self) -> Any:
        """Whether messages have times in UTC."""
        return self.app.conf.enable_utc

    @cached_property
    def _event_dispatcher(self) -> Any:
        try:
            events = self.app.events
        except ModuleNotFoundError:  # there are none in this version; messages leave all the same
            return None
        return events.Dispatcher(enabled=False)

    def _sends_events(self) -> bool:
        return bool(self.app.conf.task_send_sent_event) and self._event_dispatcher is not None

    def _handle_conf_update(self, *args: Any, **kwargs: Any) -> None:
        changed = {**(args[0] if args else {}), **kwargs}
        if not changed.keys().isdisjoint(self.app.conf._to_keys("task_routes")):
            self.flush_routes()
            self.router = self.Router()
