"""What an app has beside its tasks and settings: made when it is first asked for."""

from __future__ import annotations

from functools import cached_property
from operator import attrgetter
from typing import Any

from kombu.common import oid_from

from .._state import get_current_app
from ..utils.imports import instantiate, symbol_by_name
from . import shown_by

__all__ = [
    "backend", "bound_class", "instance_of", "known_backend", "reduce_args", "reduce_keys",
    "set_backend", "subclass_with_self", "thread_oid",
]  # fmt: skip


@shown_by("app.base")
def _unpickle_appattr(reverse_name: str, args: Any) -> Any:
    return attrgetter(reverse_name)(get_current_app())(*args)


def subclass_with_self(
    self: Any, Class: Any, name: str | None = None, attribute: str = "app",
    reverse: str | None = None, keep_reduce: bool = False, **kw: Any,
) -> Any:  # fmt: skip
    """Return a class, given itself or by name, whose objects belong to this app.

    `attribute` is where it has its app. Its objects are pickled as what the current app makes of
    `__reduce_args__` by its attribute `reverse`.
    """
    cls = symbol_by_name(Class)
    reverse = reverse or cls.__name__

    def __reduce__(made: Any) -> Any:
        return _unpickle_appattr, (reverse, made.__reduce_args__())

    body = {attribute: self, "__module__": cls.__module__, "__doc__": cls.__doc__, **kw}
    if not keep_reduce:
        body["__reduce__"] = __reduce__
    return type(name or cls.__name__, (cls,), body)


def bound_class(path: str) -> Any:
    """Return an attribute that is a class of this app's own: `app.AsyncResult`."""

    def made(self: Any) -> Any:
        return self.subclass_with_self(path)

    return cached_property(made)


def instance_of(attribute: str) -> Any:
    """Return an attribute that is an object of the class which the app names: `app.control`."""

    def made(self: Any) -> Any:
        return instantiate(getattr(self, attribute), app=self)

    return cached_property(made)


def thread_oid(self: Any) -> str:
    """Return an id of the app in this thread."""
    known = getattr(self._local, "oid", None)
    if known is None:
        known = self._local.oid = oid_from(self, threads=True)
    oid: str = known
    return oid


def known_backend(self: Any) -> Any:
    """Return the backend that has been made, or None; each thread has one, if it is not safe."""
    if self._backend_cache is not None:
        return self._backend_cache
    return getattr(self._local, "backend", None)


def backend(self: Any) -> Any:
    """Return where results are kept."""
    if (known := self._backend) is None:
        known = self._backend = self._get_backend()
    return known


def set_backend(self: Any, backend: Any) -> None:
    """Keep the backend of this thread, or of all."""
    if backend.thread_safe:
        self._backend_cache = backend
    else:
        self._local.backend = backend


def reduce_keys(self: Any) -> dict[str, Any]:
    """Return what another process makes the same app with."""
    return {
        "main": self.main,
        "changes": self._conf.changes if self.configured else self._preconf,
        "loader": self.loader_cls, "backend": self.backend_cls, "amqp": self.amqp_cls,
        "events": self.events_cls, "log": self.log_cls, "control": self.control_cls,
        "fixups": self.fixups, "config_source": self._config_source,
        "config_source_silent": self._config_source_silent, "task_cls": self.task_cls,
        "namespace": self.namespace,
    }  # fmt: skip


def reduce_args(self: Any) -> tuple[Any, ...]:
    """Return what `Pickler` makes the same app with; `__reduce_keys__` says more."""
    return (
        self.main, self._conf.changes if self.configured else {}, self.loader_cls,
        self.backend_cls, self.amqp_cls, self.events_cls, self.log_cls, self.control_cls, False,
        self._config_source, self._config_source_silent,
    )  # fmt: skip
