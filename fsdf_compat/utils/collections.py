"""Maps, sets and buffers: those of settings, and those that forget."""

from __future__ import annotations

from ._collections.buffers import BufferMap, Evictable, Messagebuffer, OrderedDict
from ._collections.limited import LimitedSet
from ._collections.maps import (
    AttributeDict,
    AttributeDictMixin,
    ChainMap,
    ConfigurationView,
    DictAttribute,
    force_mapping,
    lpmerge,
)

__all__ = [
    "AttributeDictMixin", "AttributeDict", "BufferMap", "ChainMap", "ConfigurationView",
    "DictAttribute", "Evictable", "LimitedSet", "Messagebuffer", "OrderedDict", "force_mapping",
    "lpmerge",
]  # fmt: skip
