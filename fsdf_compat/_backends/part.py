"""How a class that would be long is made of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Part"]


class Part:
    """A part of a class: it uses what the other parts have."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
