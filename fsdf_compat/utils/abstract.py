"""What tasks and signatures look like, for `isinstance`."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["CallableSignature", "CallableTask"]

Class = TypeVar("Class", bound=type)


class _Shape(metaclass=ABCMeta):  # noqa: B024
    """Takes each class for its own that has the attributes it asks for, and what is registered."""

    __required_attributes__: frozenset[str] = frozenset()

    @classmethod
    def register(cls, subclass: Class) -> Class:
        type(cls).register(cls, subclass)
        return subclass

    @classmethod
    def __subclasshook__(cls, C: type) -> Any:
        wanted = cls.__dict__.get("__required_attributes__", ())
        defined = {name for node in C.__mro__ for name in vars(node)}
        return True if wanted and defined.issuperset(wanted) else NotImplemented


class CallableTask(_Shape, Callable):  # type: ignore[misc]
    """What can be called here, and elsewhere."""

    __required_attributes__ = frozenset({"delay", "apply_async", "apply"})

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


class CallableSignature(CallableTask):
    """A call that can be kept, changed, linked and sent."""

    __required_attributes__ = frozenset({"clone", "freeze", "set", "link", "link_error", "__or__"})
