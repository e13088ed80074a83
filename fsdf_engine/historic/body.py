"""`is_consuming_function_use_multi_params=False`: the function takes the message as one dict."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..core.binding import Unnamed
from ..errors import ArgumentError, ConfigurationError

__all__ = ["WholeBody"]


class WholeBody(Unnamed):
    """The binding of a function whose only argument is the object of all named arguments."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._title = getattr(fn, "__qualname__", repr(fn))
        try:
            inspect.signature(fn).bind({})
        except TypeError as error:
            raise ConfigurationError(
                f"is_consuming_function_use_multi_params=False: {self._title} must take one"
                f" argument, the message as a dict ({error})"
            ) from None
        except ValueError:  # a builtin whose signature nobody knows
            pass

    def name(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[Any]]:
        """Take one mapping, or names; raise ArgumentError for anything else."""
        if not args:
            return dict(kwargs), []
        if len(args) > 1 or kwargs or not isinstance(args[0], Mapping):
            raise ArgumentError(
                f"{self._title} takes the message as one dict; push one mapping, or names"
            )
        if unnamed := [key for key in args[0] if not isinstance(key, str)]:
            raise ArgumentError(f"{self._title}: the key {unnamed[0]!r} is no text")
        return dict(args[0]), []

    def bind(
        self, data: dict[str, Any], leading: Sequence[Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """As `Binding.bind`; who does not have the function may have sent the dict unnamed."""
        if not leading:
            return (data,), {}
        if len(leading) > 1 or data or not isinstance(leading[0], dict):
            raise ArgumentError(f"{self._title} takes the message as one dict, and nothing else")
        return leading, {}
