"""The message on the wire. Pure.

Body: one flat JSON object keyed by parameter names; `*args` a list under its own name, `**kwargs`
flattened. `extra` is control data if and only if it is an object holding `task_id` or `task`. Keys:

task_id, publish_time   absent in bare foreign messages
task                    the task's name, where a queue carries several
args                    leading positionals that could not be named
param                   the value of a parameter that is itself called `extra`
headers                 whatever a layer on top needs
reply                   the inbox of a publisher that waits for the result
expires                 instant after which the message is not run
attempt                 where the broker could not carry it: the message was acknowledged early
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from typing import Any

import orjson

from . import codec
from .errors import ArgumentError

__all__ = ["Extra", "decode", "derived_id", "encode", "new_id"]

Extra = dict[str, Any]
_ids: deque[str] = deque()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.clear)

# orjson knows UUID, Enum and subclasses by itself; they must take the typed form, so only these
# types go straight to it.
_PLAIN = frozenset({str, bool, type(None)})
_BIG = 1 << 63
_NOTHING: Mapping[str, Any] = {}


def new_id() -> str:
    """Return 32 random hex digits; one system call pays for 256 of them."""
    try:
        return _ids.popleft()
    except IndexError:
        digits = os.urandom(16 * 256).hex()
        _ids.extend([digits[n : n + 32] for n in range(32, len(digits), 32)])
        return digits[:32]


def derived_id(parent: str, attempt: int, number: int) -> str:
    """Return the id of the `number`th message that an attempt pushes: a repeat gives it again."""
    import hashlib  # slow to import, and only runs that push need it

    name = f"{parent}:{attempt}:{number}".encode()
    return hashlib.blake2b(name, digest_size=16).hexdigest()


def encode(data: dict[str, Any], extra: Extra) -> bytes:
    """Return the body; `data` and `extra` become its property.

    Raises:
        ArgumentError: a value that JSON lacks; names the parameter.
    """
    for name, value in data.items():
        kind = type(value)
        if kind in _PLAIN or (kind is int and -_BIG <= value < _BIG):
            continue
        if kind is not float or value - value != 0.0:  # not finite: orjson would say null
            data[name] = _plain(name, value)
    if "args" in extra:
        extra["args"] = [_plain(f"argument {n + 1}", v) for n, v in enumerate(extra["args"])]
    if "extra" in data:
        extra["param"] = data.pop("extra")
    data["extra"] = extra
    try:
        return orjson.dumps(data)
    except (TypeError, ValueError) as error:
        for name, value in [*data.items(), *extra.items()]:
            try:
                orjson.dumps(value)
            except (TypeError, ValueError):
                if name != "extra":
                    raise ArgumentError(f"parameter {name!r} is no JSON: {error}") from error
        raise ArgumentError(f"the message is no JSON: {error}") from error


def _plain(name: str, value: Any) -> Any:
    try:
        return codec.plain(value)
    except ArgumentError as error:
        raise ArgumentError(f"parameter {name!r}: {error}") from None
    except RecursionError:
        raise ArgumentError(f"parameter {name!r} is nested too deep, or holds itself") from None


def decode(body: bytes) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return (arguments by name, control data).

    Raises:
        ValueError: not a JSON object.
    """
    data = orjson.loads(body)
    if type(data) is not dict:
        raise ValueError(f"the body is a JSON {_kind(data)}, not an object of named arguments")
    if b'"__type__"' in body:
        data = codec.loads(body)
    extra = data.get("extra")
    if type(extra) is dict and ("task_id" in extra or "task" in extra):
        del data["extra"]
        if "param" in extra:
            data["extra"] = extra["param"]
        return data, extra
    return data, _NOTHING


def _kind(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
