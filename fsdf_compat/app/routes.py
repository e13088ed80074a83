"""Where a task's messages go: the setting `task_routes`."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kombu.entity import Queue

from ..exceptions import QueueNotFound
from ..utils.collections import lpmerge
from ..utils.functional import maybe_evaluate, mlazy
from ..utils.imports import symbol_by_name

__all__ = ["MapRoute", "Router", "expand_router_string", "prepare"]


class MapRoute:
    """Routes by the task's name: exact names first, then patterns (globs or compiled) in order."""

    def __init__(self, map: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> None:
        self.map: dict[str, Any] = {}
        self.patterns: dict[re.Pattern[str], Any] = {}
        for key, route in map.items() if isinstance(map, Mapping) else map:
            if isinstance(key, re.Pattern):
                self.patterns[key] = route
            elif "*" in key:
                self.patterns[re.compile(fnmatch.translate(key))] = route
            else:
                self.map[key] = route

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        if name in self.map:
            return _route(self.map[name])
        for pattern, route in self.patterns.items():
            if pattern.match(name):
                return _route(route)
        return None


def _route(route: Any) -> dict[str, Any]:
    """Return a route's options; what is no mapping is a queue."""
    try:
        return dict(route)
    except (TypeError, ValueError):
        return {"queue": route}


class Router:
    """Finds the queue of a message: what its caller says, else the routes, else the default."""

    def __init__(
        self, routes: Any = None, queues: Any = None, create_missing: Any = False, app: Any = None
    ) -> None:
        self.app = app
        self.queues = {} if queues is None else queues
        self.routes = [] if routes is None else routes
        self.create_missing = create_missing

    def route(
        self,
        options: dict[str, Any],
        name: str,
        args: Any = (),
        kwargs: Any = None,
        task_type: Any = None,
    ) -> Any:
        """Return the options of a message, with its `queue` as an object."""
        options = self.expand_destination(options)
        if self.routes:
            route = self.lookup_route(name, args, kwargs or {}, options, task_type)
            if route:
                return lpmerge(self.expand_destination(route), options)
        if "queue" not in options:
            usual = self.expand_destination(self.app.conf.task_default_queue)
            options = lpmerge(usual, options)
        return options

    def expand_destination(self, route: Any) -> Any:
        """Return a route's options with its queue as an object; text is a queue's name.

        Raises:
            QueueNotFound: there is no such queue, and none may be added.
        """
        if isinstance(route, str):
            queue, route = route, {}
        else:
            queue = route.pop("queue", None)
        if queue:
            route["queue"] = queue if isinstance(queue, Queue) else self._named(queue)
        return route

    def _named(self, queue: str) -> Any:
        try:
            return self.queues[queue]
        except KeyError:
            raise QueueNotFound(f"Queue {queue!r} missing from task_queues") from None

    def lookup_route(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        options: Any = None,
        task_type: Any = None,
    ) -> Any:
        """Return what the first router says that says anything."""
        for router in self.routes:
            route = self.query_router(router, name, args, kwargs, options, task_type)
            if route is not None:
                return route
        return None

    def query_router(
        self, router: Any, task: str, args: Any, kwargs: Any, options: Any, task_type: Any
    ) -> Any:
        """Ask one router: a function, or an object with `route_for_task`."""
        router = maybe_evaluate(router)
        if hasattr(router, "route_for_task"):
            return router.route_for_task(task, args, kwargs)
        return router(task, args, kwargs, options, task=task_type)


def expand_router_string(router: Any) -> Any:
    """Import a router; a class with `route_for_task` is made an object."""
    router = symbol_by_name(router)
    return router() if hasattr(router, "route_for_task") else router


def prepare(routes: Any) -> Sequence[Any]:
    """Return the routers of the setting; those given by name are imported when first needed."""
    if routes is None:
        return ()
    if not isinstance(routes, (list, tuple)):
        routes = (routes,)
    return [_prepared(route) for route in routes]


def _prepared(route: Any) -> Any:
    if isinstance(route, (Mapping, list, tuple)):
        return MapRoute(route)
    return mlazy(expand_router_string, route) if isinstance(route, str) else route
