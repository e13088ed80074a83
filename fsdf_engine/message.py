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
attempt, pushes         where the broker could not carry them: the message was acknowledged early
sends                   how often it was replayed: each replay is a new life of the message
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from typing import Any

import orjson

from . import codec
from .errors import ArgumentError

__all__ = [
    "Extra", "Undecodable", "decode", "derived_id", "encode", "new_id", "replayed", "sends_of",
]  # fmt: skip

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


def derived_id(parent: str, base: int, number: int) -> str:
    """Return the id of the `number`th message that an attempt pushes; see `core.pushes`."""
    import hashlib  # slow to import, and only runs that push need it

    name = f"{parent}:{base}:{number}".encode()
    return hashlib.blake2b(name, digest_size=16).hexdigest()


def encode(data: dict[str, Any], extra: Extra) -> bytes:
    """Return the body; `data` and `extra` become its property.

    Raises:
        ArgumentError: a value that JSON lacks; names the parameter.
    """
    for name, value in data.items():
        kind = type(value)
        if (kind is int and -_BIG <= value < _BIG) or kind in _PLAIN:
            continue
        if kind is not float or value - value != 0.0:  # not finite: orjson would say null
            data[name] = _plain(name, value)
    if "args" in extra:
        extra["args"] = [_plain(f"argument {n + 1}", v) for n, v in enumerate(extra["args"])]
    if "headers" in extra:
        extra["headers"] = _plain("headers", extra["headers"])
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


class Undecodable(ValueError):
    """The arguments of a message cannot be decoded; its control data, `extra`, can be read."""

    def __init__(self, text: str, extra: Mapping[str, Any]) -> None:
        super().__init__(text)
        self.extra = extra


def decode(body: bytes) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return (arguments by name, control data).

    Raises:
        ValueError: not a JSON object. `Undecodable`: a typed value is none; names the parameter.
    """
    data = orjson.loads(body)
    if type(data) is not dict:
        raise ValueError(f"the body is a JSON {_kind(data)}, not an object of named arguments")
    extra = data.get("extra")
    if type(extra) is dict and ("task_id" in extra or "task" in extra):
        del data["extra"]
        if "param" in extra:
            data["extra"] = extra["param"]
    else:
        extra = _NOTHING
    if b'"__type__"' in body:
        return _revived(data, extra), _revived(extra, extra)
    return data, extra


def _revived(values: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, each of which may be or hold typed ones; they themselves are none."""
    revived = {}
    for name, value in values.items():
        try:
            revived[name] = codec.revive(value)
        except Exception as error:
            raise Undecodable(f"{name!r} cannot be decoded: {error}", extra) from error
    return revived


def replayed(body: bytes) -> bytes:
    """Return a dead letter's body as it is sent again: a life more, its attempts anew.

    A bare one is no message of ours and stays as it is; it will get another id.
    """
    import json  # keeps what orjson would round, and only replays need it

    try:
        data = json.loads(body)
        extra = data["extra"]
        if not ("task_id" in extra or "task" in extra):
            return body
        extra["sends"] = sends_of(extra) + 1
        for key in ("attempt", "pushes"):
            extra.pop(key, None)
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return body
    return text.encode(errors="backslashreplace")


def sends_of(extra: Mapping[str, Any]) -> int:
    """Return how often a message was replayed; 0 where it says nothing sensible."""
    sends = extra.get("sends", 0)
    return sends if type(sends) is int and 0 <= sends < 1 << 31 else 0


def _kind(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
