"""`task.request`: what a run can ask about its message, and change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._engine import steps
from ..utils.saferepr import saferepr
from . import shown_by

__all__ = ["Context"]

_UNSET = object()
# RabbitMQ adds them to dead letters; sent again they would look like a cycle.
_DEATH = {
    "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
    "x-last-death-exchange", "x-last-death-queue", "x-last-death-reason",
}  # fmt: skip


class _Told:
    """What a message of Celery's would say and a flat one need not: made for who asks for it.

    It has no value where the context is of no message.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __get__(self, context: Any, kind: type) -> Any:
        if context is None or context.is_eager or context.delivery_info is None:
            return None
        return self._make(context)


class _Ahead:
    """What is left of a chain: a list, made of how it travels for who asks for it."""

    def __get__(self, context: Any, kind: type) -> Any:
        if context is None:
            return None
        own = context.__dict__
        if isinstance(chain := own.get("chain"), str):
            chain = own["chain"] = steps.opened(chain)
        return chain

    def __set__(self, context: Any, chain: Any) -> None:
        context.__dict__["chain"] = chain


def _properties(context: Any) -> dict[str, Any]:
    told = context.delivery_info
    return {
        "correlation_id": context.correlation_id, "reply_to": context.reply_to,
        "delivery_mode": 2, "delivery_info": told, "priority": told.get("priority"),
    }  # fmt: skip


@shown_by("app.task")
class Context:
    """A message's facts as attributes: those of Celery, and every other header that it has."""

    _children: list[Any] | None = None
    _protected = 0
    args: Any = None
    argsrepr: Any = _Told(lambda context: saferepr(tuple(context.args or ())))
    callbacks: Any = None
    called_directly = True
    chain: Any = _Ahead()
    chord: Any = None
    correlation_id: Any = None
    delivery_info: Any = None
    errbacks: Any = None
    eta: Any = None
    expires: Any = None
    group: Any = None
    group_index: Any = None
    headers: Any = None
    hostname: Any = None
    id: Any = None
    ignore_result: Any = False
    is_eager = False
    kwargs: Any = None
    kwargsrepr: Any = _Told(lambda context: saferepr(context.kwargs or {}))
    logfile: Any = None
    loglevel: Any = None
    origin: Any = None
    parent_id: Any = None
    properties: Any = _Told(_properties)
    retries = 0
    reply_to: Any = None
    replaced_task_nesting = 0
    root_id: Any = None
    shadow: Any = None
    soft_time_limit: Any = None
    stamped_headers: Any = None
    stamps: Any = _Told(lambda _: {})
    taskset: Any = None
    time_limit: Any = None
    timelimit: Any = _Told(lambda _: [None, None])
    utc: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        own = self.__dict__
        own.update(*args, **kwargs)
        if "timelimit" in own:
            self._take_limits()
        if not _OWN.issuperset(own) and own.get("headers") is None:
            own["headers"] = {key: own[key] for key in own if key not in _OWN}

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set attributes; the two limits follow `timelimit`, [hard, soft]."""
        own = self.__dict__
        before = own.get("timelimit", _UNSET)
        own.update(*args, **kwargs)
        if own.get("timelimit", _UNSET) is not before:
            self._take_limits()

    def _take_limits(self) -> None:
        limits = self.timelimit
        both = isinstance(limits, (list, tuple)) and len(limits) >= 2
        self.time_limit, self.soft_time_limit = limits[:2] if both else (None, None)

    def clear(self) -> None:
        """Forget everything."""
        self.__dict__.clear()

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute, or the default."""
        return getattr(self, key, default)

    def __repr__(self) -> str:
        return f"<Context: {vars(self)!r}>"

    def _filter_x_death_headers(self, headers: Any) -> dict[str, Any]:
        return {key: value for key, value in (headers or {}).items() if key not in _DEATH}

    def as_execution_options(self) -> dict[str, Any]:
        """Return what to give `apply_async` for a message like this one."""
        hard, soft = self.timelimit or (None, None)
        options = {
            "task_id": self.id, "root_id": self.root_id, "parent_id": self.parent_id,
            "group_id": self.group, "group_index": self.group_index, "shadow": self.shadow,
            "chord": self.chord, "chain": self.chain, "link": self.callbacks,
            "link_error": self.errbacks, "expires": self.expires, "soft_time_limit": soft,
            "time_limit": hard, "headers": self._filter_x_death_headers(self.headers),
            "retries": self.retries, "reply_to": self.reply_to,
            "replaced_task_nesting": self.replaced_task_nesting, "origin": self.origin,
        }  # fmt: skip
        if self.stamps is not None and self.stamped_headers is not None:
            options["stamped_headers"] = self.stamped_headers
            names = self.stamps.keys() & set(self.stamped_headers)
            options.update({name: self.stamps[name] for name in names})
        return options

    @property
    def children(self) -> list[Any]:
        """The results of what this run has sent."""
        if self._children is None:
            self._children = []
        return self._children


_OWN = frozenset({*vars(Context), "compression", "lang", "task"})
