"""Questions about type annotations."""

from __future__ import annotations

import types
import typing
from inspect import isclass
from typing import Any

__all__ = ["annotation_is_class", "annotation_issubclass", "get_optional_arg", "is_none_type"]


def is_none_type(value: Any) -> bool:
    """Tell if it is the type of None."""
    return value is types.NoneType


def get_optional_arg(annotation: Any) -> Any:
    """Return X of `Optional[X]` or `X | None`; None if the annotation is another."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return None
    inner = typing.get_args(annotation)
    others = [arg for arg in inner if not is_none_type(arg)]
    return others[0] if len(inner) == 2 and len(others) == 1 else None


def annotation_is_class(annotation: Any) -> bool:
    """Tell if `isinstance` takes it."""
    # Until Python 3.11 `list[str]` passes for a class.
    return isclass(annotation) and not isinstance(annotation, types.GenericAlias)


def annotation_issubclass(annotation: Any, cls: type) -> bool:
    """Tell if it is a class derived from `cls`."""
    return annotation_is_class(annotation) and issubclass(annotation, cls)
