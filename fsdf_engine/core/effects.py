"""What an effect has to be: checked where it is made, before anything of it is stored. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any, get_args

from ..contracts import Effect, Outgoing, Record
from ..errors import ArgumentError

__all__ = ["UnfitEffect", "check_effect"]
LARGEST = 512 << 20  # bytes of a body: what Redis takes at most
_NUMBER = (float, int)
_FIT: Mapping[str, tuple[type, ...]] = {  # by what is declared
    "str": (str,), "bytes": (bytes,), "int": (int,), "bool": (bool,), "float": _NUMBER,
    "str | None": (str, type(None)), "Mapping[str, str] | None": (dict, type(None)),
}  # fmt: skip
_TYPES = {kind: [(f.name, _FIT[str(f.type)]) for f in fields(kind)] for kind in get_args(Effect)}
_FIELDS = {kind: attrgetter(*[name for name, _ in named]) for kind, named in _TYPES.items()}
# an effect's type and those of its fields, where they were fit: so they are few
_SEEN: set[tuple[type, ...]] = set()


class UnfitEffect(ArgumentError):
    """A sink has made what no broker or store takes."""


def check_effect(effect: Effect) -> None:
    """Let an effect pass that a broker or store can take.

    Raises:
        UnfitEffect: it cannot; says why.
    """
    made = type(effect).__name__
    if type(effect) not in _TYPES:
        raise UnfitEffect(f"a value of type {made} is no effect")
    if type(effect) is Outgoing or _types_of(effect) not in _SEEN:
        _check_fields(effect, made)
    if len(effect.body) > LARGEST:
        raise UnfitEffect(f"the body of an effect has {len(effect.body)} bytes; at most {LARGEST}")
    if type(effect) is Outgoing:
        _check_outgoing(effect)
    elif type(effect) is Record and not effect.expires > 0:  # infinite: for ever
        raise UnfitEffect(f"expires={effect.expires!r} of a result is no time to keep it")


def _types_of(effect: Effect) -> tuple[type, ...]:
    return type(effect), *map(type, _FIELDS[type(effect)](effect))


def _check_fields(effect: Effect, made: str) -> None:
    for name, types in _TYPES[type(effect)]:
        value: Any = getattr(effect, name)
        if type(value) not in types:
            raise UnfitEffect(f"{name} of an effect {made} is of type {type(value).__name__}")
        if types is _NUMBER and type(effect) is Outgoing and not 0 <= value < math.inf:
            raise UnfitEffect(f"{name}={value!r} is no number of seconds of 0 or more")
    _SEEN.add(_types_of(effect))


def _check_outgoing(effect: Outgoing) -> None:
    if not (effect.queue and effect.id):
        raise UnfitEffect("a message to be published needs a queue and an id")
    if not -9 <= effect.priority <= 9:
        raise UnfitEffect(f"priority={effect.priority} is no whole number from -9 to 9")
    texts = [effect.queue, effect.id, effect.key or ""]
    for pair in (effect.headers or {}).items():
        texts += pair
    try:
        "".join(texts).encode()
    except (TypeError, UnicodeEncodeError):
        raise UnfitEffect("a queue, id, key or header is no Unicode text") from None
