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
limits                  [soft, hard]: seconds of an attempt; 0 or null: as the task has it
group                   [the id of the group that it is a member of, its place there]
attempt, crashes, pushes    where the broker cannot carry them: the message was sent anew
sends                   how often it was sent anew: after an early end, or as a replayed dead letter

Every codec (`Codec`) gives control data in these words, but for `args` and `param`, which are this
form's own.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import orjson

from . import codec
from .errors import ArgumentError
from .messaging import Outgoing
from .wire import Arguments, Codec, Envelope

if TYPE_CHECKING:
    from .execution import Job

__all__ = ["FLAT", "Extra", "Flat", "count_of", "derived_id", "encode", "new_id", "sends_of"]

Extra = dict[str, Any]
_ids: deque[str] = deque()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.clear)

# orjson knows UUID, Enum and subclasses by itself; they must take the typed form, so only these
# types go straight to it.
_PLAIN = frozenset({str, bool, type(None)})
_BIG = 1 << 63
_TYPED = b'"__type__"'


def new_id() -> str:
    """Return 32 random hex digits; one system call pays for 256 of them."""
    try:
        return _ids.popleft()
    except IndexError:
        digits = os.urandom(16 * 256).hex()
        _ids.extend([digits[n : n + 32] for n in range(32, len(digits), 32)])
        return digits[:32]


def derived_id(parent: str, base: int, number: int) -> str:
    """Return the id of the `number`th message that an attempt pushes, see `core.pushes`; with 0 of
    the message itself, sent anew."""
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


class Flat(Codec):
    """The engine's own wire form. Any JSON object is of it, so it is asked last.

    A retry may change `args` and `kwargs` (each given in place of all arguments that the message
    had), `queue`, `task` ("" for the only one of a queue), `priority`, `expires`, `headers` and
    `limits`.
    """

    def envelope(
        self, body: bytes, headers: object = None, parse: Callable[[bytes], Any] = orjson.loads
    ) -> Envelope:
        """Return (control data, arguments by name, typed values as they came)."""
        data = parse(body)
        if type(data) is not dict:
            raise ValueError(f"the body is a JSON {_kind(data)}, not an object of named arguments")
        extra = data.get("extra")
        if type(extra) is dict and ("task_id" in extra or "task" in extra):
            del data["extra"]
            if "param" in extra:
                data["extra"] = extra["param"]
            return extra, data
        return {}, data

    def arguments(self, job: Job) -> Arguments:
        """Revive typed values, then convert by annotation and bind to the function's parameters."""
        if _TYPED in job.delivery.body:
            job.kept, job.extra = _revived(job.kept), _revived(job.extra)
        return job.plan.bind(job.kept, job.extra.get("args", ()))

    def again(self, job: Job, changes: Mapping[str, Any]) -> Outgoing:
        """Return the message with these changes; a bare one gets an envelope."""
        extra, data = self.envelope(job.delivery.body, None, _exactly)
        given = {"queue": job.plan.queue, "priority": job.delivery.priority, **changes}
        queue, priority = given.pop("queue"), given.pop("priority")
        if "args" in given or "kwargs" in given:
            named = dict(given.pop("kwargs", None) or {})
            data = {str(name): _plain(name, value) for name, value in named.items()}
            given["args"] = list(given.get("args") or ())
        if unknown := given.keys() - _CHANGES - _COUNTS:
            raise ArgumentError(
                f"a retry cannot change {sorted(unknown)[0]!r}; it can change"
                f" {', '.join(sorted(_CHANGES))}"
            )
        for key, value in given.items():
            extra[key] = _plain(key, value)
            if not value:
                del extra[key]
        outgoing = Outgoing(queue, job.id, _text(data, extra), job.delivery.headers)
        outgoing.priority = priority
        return outgoing

    def replayed(self, body: bytes) -> bytes:
        """Return it with a life more; a bare one as it is: it will get another id."""
        try:
            extra, data = self.envelope(body, None, _exactly)
            if not extra:
                return body
            extra["sends"] = sends_of(extra) + 1
            for key in ("attempt", "crashes", "pushes"):
                extra.pop(key, None)
            return _text(data, extra)
        except (ValueError, RecursionError):
            return body


FLAT = Flat()
_CHANGES = {"args", "expires", "headers", "kwargs", "limits", "priority", "queue", "task"}
_COUNTS = {"attempt", "crashes", "pushes", "sends", "task_id"}  # the engine's


def _revived(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, each of which may be or hold typed ones; they themselves are none."""
    revived = {}
    for name, value in values.items():
        try:
            revived[name] = codec.revive(value)
        except Exception as error:
            raise ValueError(f"{name!r} cannot be decoded: {error}") from error
    return revived


def _exactly(body: bytes) -> Any:
    """Parse JSON and keep what orjson would round; slow, for what is sent anew."""
    import json

    return json.loads(body)


def _text(data: dict[str, Any], extra: Extra) -> bytes:
    """Return the body of what `_exactly` has read."""
    import json

    extra.pop("param", None)
    if "extra" in data:
        extra["param"] = data.pop("extra")
    text = json.dumps({**data, "extra": extra}, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="backslashreplace")


def sends_of(extra: Mapping[str, Any]) -> int:
    """Return how often a message was sent anew."""
    return count_of(extra, "sends")


def count_of(extra: Mapping[str, Any], key: str) -> int:
    """Return a count of the control data; 0 where it says nothing sensible."""
    count = extra.get(key, 0)
    return count if type(count) is int and 0 <= count < 1 << 31 else 0


def _kind(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
