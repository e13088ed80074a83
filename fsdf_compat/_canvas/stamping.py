"""Stamps: headers that a visitor gives to the signatures of a canvas."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from ..utils.functional import maybe_list
from .late import canvas

__all__ = ["StampingVisitor", "merge_dictionaries", "stamp_links", "stamp_task", "stamps_of"]


class StampingVisitor(metaclass=ABCMeta):
    """Decides about stamps: what a method returns is merged into the headers of its subject."""

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> dict:
        """Called for each signature; returns headers to add."""

    def on_group_start(self, group: Any, **headers: Any) -> dict:
        """Called before the tasks of a group."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:
        """Called after the tasks of a group."""

    def on_chain_start(self, chain: Any, **headers: Any) -> dict:
        """Called before the tasks of a chain."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:
        """Called after the tasks of a chain."""

    def on_chord_header_start(self, sig: Any, **header: Any) -> dict:
        """Called before the header of a chord, which is a group from now on."""
        if not isinstance(sig.tasks, canvas.group):
            sig.tasks = canvas.group(sig.tasks)
        return self.on_group_start(sig.tasks, **header)

    def on_chord_header_end(self, sig: Any, **header: Any) -> None:
        """Called after the header of a chord."""
        self.on_group_end(sig.tasks, **header)

    def on_chord_body(self, sig: Any, **header: Any) -> dict:
        """Called before the body of a chord."""
        return {}

    def on_callback(self, callback: Any, **header: Any) -> dict:
        """Called for each callback."""
        return {}

    def on_errback(self, errback: Any, **header: Any) -> dict:
        """Called for each errback."""
        return {}


def merge_dictionaries(d1: dict, d2: dict | None, aggregate_duplicates: bool = True) -> None:
    """Merge `d2` into `d1`, in depth; with `aggregate_duplicates` two values become a list."""
    for key, value in (d2 or {}).items():
        if key not in d1:
            d1[key] = value
        elif isinstance(d1[key], dict):
            merge_dictionaries(d1[key], value, aggregate_duplicates)
        else:
            d1[key] = _both(d1[key], value, aggregate_duplicates)


def _both(mine: Any, other: Any, aggregate: bool) -> Any:
    if isinstance(mine, (int, float, str)) and aggregate:
        mine = [mine]
    if isinstance(mine, list) and isinstance(other, list):
        mine.extend(other)
    elif aggregate:
        mine = [*(mine or ()), other]
    return mine


def stamps_of(
    options: dict,
    visitor_headers: dict | None,
    append_stamps: bool,
    self_headers: bool,
    headers: dict,
) -> dict:
    """Return the stamps of a signature: its given ones, the visitor's, and those in its options."""
    headers = dict(headers)
    headers.setdefault("stamped_headers", list(headers))
    if visitor_headers is not None:
        visitor_headers.setdefault("stamped_headers", list(visitor_headers))
        # a visitor's stamp wins, for two values would make a list of what was one
        merge_dictionaries(headers, visitor_headers, append_stamps)
        headers["stamped_headers"] = _unique(headers["stamped_headers"])
    if self_headers:
        names = _unique([*headers["stamped_headers"], *options.get("stamped_headers", ())])
        headers["stamped_headers"] = names
        merge_dictionaries(headers, {k: v for k, v in options.items() if k in names}, append_stamps)
        headers["stamped_headers"] = _unique(headers["stamped_headers"])
    return headers


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def stamp_links(sig: Any, visitor: Any, append_stamps: bool, headers: dict) -> None:
    """Stamp the callbacks and errbacks of a signature, but not with the stamps of its own."""
    for option, hook in (("link", "on_callback"), ("link_error", "on_errback")):
        given = deepcopy(headers)
        for link in maybe_list(sig.options.get(option)) or []:
            link = canvas.maybe_signature(link, app=sig.app)
            told = None if visitor is None else getattr(visitor, hook)(link, **given) or {}
            given = stamps_of(sig.options, told, append_stamps, False, given)
            link.stamp(visitor, append_stamps, **given)


def stamp_task(task: Any, visitor: Any, append_stamps: bool, **headers: Any) -> Any:
    """Stamp one task of many that a generator makes, and return it."""
    task.stamp(visitor, append_stamps, **headers)
    return task
