"""`app.control`: tell workers what to do, and ask them. Over kombu's own control exchange."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from billiard.common import TERM_SIGNAME
from billiard.util import register_after_fork
from kombu.matcher import match
from kombu.pidbox import Mailbox
from kombu.utils.functional import lazy
from kombu.utils.objects import cached_property

from .._app.places import broker_of
from ..exceptions import DuplicateNodenameWarning, ImproperlyConfigured
from ..utils.log import get_logger
from ..utils.text import pluralize

__all__ = ["Control", "Inspect", "flatten_reply"]
logger = get_logger("celery.app.control")
fits: Any = match  # it takes text, whatever its types say


def flatten_reply(reply: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the answers by the nodes' names; two nodes of one name are warned of."""
    nodes: dict[str, Any] = {}
    twice: set[str] = set()
    for item in reply:
        twice |= item.keys() & nodes.keys()
        nodes.update(item)
    if twice:
        names = ", ".join(sorted(twice))
        warnings.warn(
            f"Received multiple replies from node {pluralize(len(twice), 'name')}: {names}."
            " Give each worker a name of its own by the option -n.",
            DuplicateNodenameWarning,
            stacklevel=2,
        )
    return nodes


def _clean_up(control: Control) -> None:
    try:
        control._after_fork()
    except Exception as error:
        logger.info("after fork raised exception: %r", error, exc_info=True)


class Inspect:
    """Asks workers. Each answer is {node: what it says}, or None when no node answers in time."""

    app: Any = None

    def __init__(
        self,
        destination: Any = None,
        timeout: float = 1.0,
        callback: Callable[..., Any] | None = None,
        connection: Any = None,
        app: Any = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: Any = None,
    ) -> None:
        self.app = app or self.app
        self.destination, self.timeout, self.callback = destination, timeout, callback
        self.connection, self.limit = connection, limit
        self.pattern, self.matcher = pattern, matcher

    def _prepare(self, reply: Any) -> Any:
        if not reply:
            return None
        nodes = flatten_reply(reply)
        if self.destination and not isinstance(self.destination, (list, tuple)):
            return nodes.get(self.destination)
        if self.pattern:
            return {n: r for n, r in nodes.items() if fits(n, self.pattern, self.matcher)}
        return nodes

    def _request(self, command: str, **kwargs: Any) -> Any:
        return self._prepare(
            self.app.control.broadcast(
                command,
                arguments=kwargs,
                destination=self.destination,
                callback=self.callback,
                connection=self.connection,
                limit=self.limit,
                timeout=self.timeout,
                reply=True,
                pattern=self.pattern,
                matcher=self.matcher,
            )
        )

    def report(self) -> Any:
        """Ask for what a report of a bug needs."""
        return self._request("report")

    def clock(self) -> Any:
        """Ask for the logical clock."""
        return self._request("clock")

    def active(self, safe: bool | None = None) -> Any:
        """Ask which tasks run."""
        return self._request("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:
        """Ask which tasks wait for their time; a worker that leaves them to the broker has none."""
        return self._request("scheduled")

    def reserved(self, safe: bool | None = None) -> Any:
        """Ask which tasks are there and have not started."""
        return self._request("reserved")

    def stats(self) -> Any:
        """Ask for the worker's figures."""
        return self._request("stats")

    def revoked(self) -> Any:
        """Ask which ids are revoked."""
        return self._request("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """Ask which tasks are known, with these attributes of theirs."""
        return self._request("registered", taskinfoitems=taskinfoitems)

    registered_tasks = registered

    def ping(self, destination: Any = None) -> Any:
        """Ask who is there."""
        if destination:
            self.destination = destination
        return self._request("ping")

    def active_queues(self) -> Any:
        """Ask which queues are consumed."""
        return self._request("active_queues")

    def query_task(self, *ids: Any) -> Any:
        """Ask what became of tasks that a worker has: {id: (state, what it is)}."""
        if len(ids) == 1 and isinstance(ids[0], (list, tuple)):
            return self._request("query_task", ids=ids[0])  # as it was once called
        return self._request("query_task", ids=ids)

    def conf(self, with_defaults: bool = False) -> Any:
        """Ask for the settings."""
        return self._request("conf", with_defaults=with_defaults)

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        """Ask as a worker that starts does."""
        return self._request("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Any:
        """Ask for the memory that a worker has."""
        return self._request("memsample")

    def memdump(self, samples: int = 10) -> Any:
        """Ask for the memory that it had."""
        return self._request("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Any:
        """Ask for a picture of what keeps objects alive."""
        return self._request("objgraph", num=n, max_depth=max_depth, type=type)


class Control:
    """Tells workers. What every method takes beside its own arguments is in `broadcast`."""

    Mailbox = Mailbox

    def __init__(self, app: Any = None) -> None:
        self.app, conf = app, app.conf
        if conf.control_queue_durable and conf.control_queue_exclusive:
            raise ImproperlyConfigured(
                "control_queue_durable and control_queue_exclusive cannot both be True: exclusive"
                " queues end with their connection"
            )
        self.mailbox = self.Mailbox(
            conf.control_exchange,
            type="fanout",
            accept=conf.accept_content,
            serializer=conf.task_serializer,
            producer_pool=lazy(lambda: self.app.amqp.producer_pool),
            queue_ttl=conf.control_queue_ttl,
            reply_queue_ttl=conf.control_queue_ttl,
            queue_expires=conf.control_queue_expires,
            queue_exclusive=conf.control_queue_exclusive,
            queue_durable=conf.control_queue_durable,
            reply_queue_expires=conf.control_queue_expires,
        )
        register_after_fork(self, _clean_up)

    def _after_fork(self) -> None:
        del self.mailbox.producer_pool

    @cached_property
    def inspect(self) -> Any:
        """The class whose objects ask workers."""
        return self.app.subclass_with_self(Inspect, reverse="control.inspect")

    def purge(self, connection: Any = None) -> int:
        """Delete what waits in the configured queues; return how many messages that were."""
        return self.purge_queues(self.app.amqp.queues, connection)

    discard_all = purge

    def purge_queues(self, names: Iterable[str], connection: Any = None) -> int:
        """Delete what waits in these queues, also what Celery itself has sent there."""
        names = list(names)
        count = sum(self.app.purge_queue(name) for name in names)
        with self.app.connection_or_acquire(connection) as found:
            for name in names:
                try:
                    count += found.default_channel.queue_purge(name) or 0
                except found.channel_errors:  # Celery has no such queue
                    continue
        return count

    def election(self, id: str, topic: str, action: Any = None, connection: Any = None) -> None:
        """Hold an election among workers."""
        arguments = {"id": id, "topic": topic, "action": action}
        self.broadcast("election", connection=connection, destination=None, arguments=arguments)

    def revoke(
        self,
        task_id: str | Sequence[str],
        destination: Any = None,
        terminate: bool = False,
        signal: str = TERM_SIGNAME,
        **kwargs: Any,
    ) -> Any:
        """Have tasks not run that have not started; it is remembered beside the broker, too.

        With `terminate` those that run are ended.
        """
        if destination is None:
            self.app.cancel([task_id] if isinstance(task_id, str) else list(task_id))
        arguments = {"task_id": task_id, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke", destination=destination, arguments=arguments, **kwargs)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        destination: Any = None,
        terminate: bool = False,
        signal: str = TERM_SIGNAME,
        **kwargs: Any,
    ) -> Any:
        """Have tasks with these stamps not run; see `revoke`."""
        result = self.broadcast(
            "revoke_by_stamped_headers",
            destination=destination,
            arguments={"headers": headers, "terminate": terminate, "signal": signal},
            **kwargs,
        )
        answers = [answer.get("ok") for host in result or () for answer in host.values()]
        ids = {id for found in answers if isinstance(found, set) for id in found}
        if not ids:
            return result
        more = {"destination": destination, "terminate": terminate, "signal": signal, **kwargs}
        return self.revoke(list(ids), **more)

    def terminate(
        self, task_id: Any, destination: Any = None, signal: str = TERM_SIGNAME, **kwargs: Any
    ) -> Any:
        """End tasks that run."""
        more = {"destination": destination, "signal": signal, **kwargs}
        return self.revoke(task_id, terminate=True, **more)

    def ping(self, destination: Any = None, timeout: float = 1.0, **kwargs: Any) -> Any:
        """Ask who is there: a list of {node: {"ok": "pong"}}."""
        more = {"destination": destination, "timeout": timeout, **kwargs}
        return self.broadcast("ping", reply=True, arguments={}, **more)

    def rate_limit(
        self, task_name: str, rate_limit: Any, destination: Any = None, **kwargs: Any
    ) -> Any:
        """Let a task start so often: a number a second, or such as "100/m"."""
        arguments = {"task_name": task_name, "rate_limit": rate_limit}
        return self.broadcast("rate_limit", destination=destination, arguments=arguments, **kwargs)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Have a queue consumed, too."""
        arguments = {
            "queue": queue, "exchange": exchange, "exchange_type": exchange_type,
            "routing_key": routing_key, **(options or {}),
        }  # fmt: skip
        return self.broadcast(
            "add_consumer", destination=destination, arguments=arguments, **kwargs
        )

    def cancel_consumer(self, queue: str, destination: Any = None, **kwargs: Any) -> Any:
        """Have a queue consumed no more."""
        return self._tell("cancel_consumer", destination, kwargs, queue=queue)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Set the limits, in seconds, of a task."""
        limits = {"task_name": task_name, "hard": hard, "soft": soft}
        return self._tell("time_limit", destination, kwargs, **limits)

    def enable_events(self, destination: Any = None, **kwargs: Any) -> Any:
        """Have events sent."""
        return self._tell("enable_events", destination, kwargs)

    def disable_events(self, destination: Any = None, **kwargs: Any) -> Any:
        """Have no events sent."""
        return self._tell("disable_events", destination, kwargs)

    def pool_grow(self, n: int = 1, destination: Any = None, **kwargs: Any) -> Any:
        """Have more slots."""
        return self._tell("pool_grow", destination, kwargs, n=n)

    def pool_shrink(self, n: int = 1, destination: Any = None, **kwargs: Any) -> Any:
        """Have fewer slots."""
        return self._tell("pool_shrink", destination, kwargs, n=n)

    def autoscale(self, max: int, min: int, destination: Any = None, **kwargs: Any) -> Any:
        """Set between how many slots a pool scales itself."""
        return self._tell("autoscale", destination, kwargs, max=max, min=min)

    def shutdown(self, destination: Any = None, **kwargs: Any) -> Any:
        """Have workers stop, when what runs has ended."""
        return self._tell("shutdown", destination, kwargs)

    def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,
        reloader: Any = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Have the pool made anew."""
        arguments = {"modules": modules, "reload": reload, "reloader": reloader}
        return self._tell("pool_restart", destination, kwargs, **arguments)

    def heartbeat(self, destination: Any = None, **kwargs: Any) -> Any:
        """Have a heartbeat sent now."""
        return self._tell("heartbeat", destination, kwargs)

    def _tell(
        self, command: str, destination: Any, options: Mapping[str, Any], **arguments: Any
    ) -> Any:
        return self.broadcast(command, arguments=arguments, destination=destination, **options)

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: Any = None,
        connection: Any = None,
        reply: bool = False,
        timeout: float = 1.0,
        limit: int | None = None,
        callback: Callable[..., Any] | None = None,
        channel: Any = None,
        pattern: str | None = None,
        matcher: Any = None,
        **extra_kwargs: Any,
    ) -> Any:
        """Send a command to all workers, or to those in `destination`, or that `pattern` matches.

        With `reply` return the answers that came in `timeout` seconds, or the first `limit` ones;
        `callback` is given each as it comes. Further arguments are the command's.

        Raises:
            ImproperlyConfigured: the app's broker is none that there is.
        """
        if connection is None:
            broker_of(self.app)
        chosen = {"pattern": pattern, "matcher": matcher} if pattern and matcher else {}
        with self.app.connection_or_acquire(connection) as found:
            return self.mailbox(found)._broadcast(
                command, dict(arguments or {}, **extra_kwargs), destination, reply, timeout, limit,
                callback, channel=channel, **chosen,
            )  # fmt: skip
