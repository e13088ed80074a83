"""The commands that workers know."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Panel", "control_command", "controller_info_t", "inspect_command", "nok", "ok"]


class controller_info_t(NamedTuple):
    """What is known of a command."""

    alias: str | None
    type: str
    visible: bool
    default_timeout: float
    help: str | None
    signature: str | None
    args: Any
    variadic: str | None


def ok(value: Any) -> dict[str, Any]:
    """Return an answer that all is well."""
    return {"ok": value}


def nok(value: Any) -> dict[str, Any]:
    """Return an answer that something is not."""
    return {"error": value}


class Panel(UserDict):
    """The commands by name, of all workers of this process."""

    data: dict[str, Any] = {}
    meta: dict[str, controller_info_t] = {}

    @classmethod
    def register(cls, *args: Any, **kwargs: Any) -> Any:
        """Register a function as a command; as a decorator with or without arguments."""
        return cls._register(**kwargs)(*args) if args else cls._register(**kwargs)

    @classmethod
    def _register(
        cls,
        name: str | None = None,
        alias: str | None = None,
        type: str = "control",
        visible: bool = True,
        default_timeout: float = 1.0,
        help: str | None = None,
        signature: str | None = None,
        args: Any = None,
        variadic: str | None = None,
    ) -> Callable[[Any], Any]:
        def register(fun: Any) -> Any:
            text = help or (fun.__doc__ or "").strip().split("\n")[0]
            known = name or fun.__name__
            cls.data[known] = fun
            cls.meta[known] = controller_info_t(
                alias, type, visible, default_timeout, text, signature, args, variadic
            )
            if alias:
                cls.data[alias] = fun
            return fun

        return register


def control_command(**kwargs: Any) -> Any:
    """Register a function, called with the worker's state and arguments, as a control command."""
    return Panel.register(type="control", **kwargs)


def inspect_command(**kwargs: Any) -> Any:
    """Register a function as an inspect command."""
    return Panel.register(type="inspect", **kwargs)
