"""The layer's wire form: flat JSON that remembers how the call was written.

    {"x": 1, "y": 2, "extra": {"task_id": ..., "task": "proj.add", "positional": 1}}

is `add(1, y=2)`. Keys of `extra` beside the engine's (`fsdf_engine.message`):

positional      how many of the leading arguments, in the object's order, were given by position
args            positional arguments that could not be named; they come first
content         instead of all arguments: [content type, encoding, text], where the text of what is
                binary is base64; read only where the app's `accept_content` has the type
param           the value of a parameter that is itself called `extra`
headers         Celery's headers that differ from their defaults, and those of the publisher's own
origin          the process that has published it: gen<pid>@<host>
priority        Celery's, where the broker has fewer
redelivered     the task has put its message back in line

A bare object of another program is a call with keyword arguments. Values are typed as kombu's JSON
types them. Pure.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson
from kombu import serialization
from kombu.utils.json import loads as typed

from fsdf_engine.contracts import Arguments, Codec, Envelope, Job, Outgoing

__all__ = ["LAST", "CelerysFlat"]
_PLAIN = frozenset({str, int, bool, type(None)})
_TYPED = b'"__type__"'
_BIG = re.compile(rb"\d{19}")  # perhaps a whole number that orjson would give as a float
LAST = 253402300799  # the last second of the year 9999
_FORMS: dict[str, Callable[[Any], bool]] = {
    "headers": lambda value: type(value) is dict,
    "args": lambda value: type(value) is list,
    "limits": lambda value: type(value) is list and len(value) == 2,
    "expires": lambda value: type(value) in (int, float) and 0 <= value <= LAST,
}
_NONE: dict[str, Any] = {}
_WRONG = "wrong"  # what of the control data had a wrong form
_CHANGES = frozenset({"attempt", "crashes", "pushes", "redelivered", "sends", "task_id"})


class CelerysFlat(Codec):
    """The wire form of one app. Any JSON object is of it.

    `only` is the task of messages that name none, where the app has just one; `limits` are [soft,
    hard] seconds of tasks whose limits have changed since the worker started.
    """

    def __init__(self, accept: Iterable[str] = ("json",)) -> None:
        self.only, self._accept = "", accept
        self.limits: dict[str, list[float]] = {}

    def envelope(self, body: bytes, headers: Mapping[str, str] | None = None) -> Envelope:
        """Return (control data, arguments by name, as they came)."""
        try:
            data = orjson.loads(body)
        except ValueError:  # Python's own writes more, such as NaN
            try:
                data = json.loads(body)
            except RecursionError:
                raise ValueError("the body is nested too deep") from None
        if type(data) is not dict:
            raise ValueError(f"the body is a JSON {type(data).__name__}, no object of arguments")
        extra = data.get("extra")
        if type(extra) is dict and ("task_id" in extra or "task" in extra):
            del data["extra"]
            if "param" in extra:
                data["extra"] = extra["param"]
            headed = type(extra.get("headers", _NONE)) is dict  # most have some
            if not headed or "args" in extra or "limits" in extra or "expires" in extra:
                _sort_out(extra)
            if self.limits and extra.get("task") in self.limits:
                extra.setdefault("limits", self.limits[extra["task"]])
            return extra, data
        return ({"task": self.only} if self.only else {}), data

    def arguments(self, job: Job) -> Arguments:
        """Return the positional arguments as a list, and those by name."""
        data, extra, body = job.kept, job.extra, job.delivery.body
        if _WRONG in extra:
            raise ValueError(extra[_WRONG])
        if "content" in extra:
            return self._content(*extra["content"])
        if _TYPED in body or not _PLAIN.issuperset(map(type, data.values())) or "args" in extra:
            data, extra = self._exactly(body, data, extra)
        named = extra.get("positional", 0)
        if type(named) is not int or not 0 <= named <= len(data):
            raise ValueError(f"extra.positional is {named!r}, of {len(data)} arguments")
        args = list(extra.get("args") or ())
        if named == len(data):
            return [*args, *data.values()], {}
        if named:
            items = list(data.items())
            return args + [value for _, value in items[:named]], dict(items[named:])
        return args, data

    def _exactly(
        self, body: bytes, data: dict[str, Any], extra: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return arguments and control data as kombu reads them, where that is not the same."""
        if _TYPED not in body and not _BIG.search(body):
            return data, extra
        exact = typed(body)
        given = exact.get("extra")
        if type(given) is not dict or not ("task_id" in given or "task" in given):
            return exact, extra
        del exact["extra"]
        if "param" in given:
            exact["extra"] = given["param"]
        if "headers" in given:  # links hold arguments, too
            extra["headers"] = given["headers"]
        return exact, given

    def _content(self, kind: str, encoding: str, text: str) -> Arguments:
        payload: Any = base64.b64decode(text) if encoding == "binary" else text
        accept = serialization.prepare_accept_content(self._accept)
        args, kwargs = serialization.loads(payload, kind, encoding, accept=accept)
        return args, kwargs

    def again(self, job: Job, changes: Mapping[str, Any]) -> Outgoing:
        """Return the same message, counted; it may have another queue or priority.

        What a task changes with a retry is a message of its own.
        """
        given = {"queue": job.plan.queue, "priority": job.delivery.priority, **changes}
        queue, priority = given.pop("queue"), given.pop("priority")
        if unknown := given.keys() - _CHANGES:
            raise ValueError(f"{min(unknown)!r} of a message cannot be changed")
        if priority != job.delivery.priority:
            given["priority"] = None
        body = counted(job.delivery.body, {**self._named(job), **given})
        return Outgoing(queue, job.id, body, job.delivery.headers, priority=priority)

    def _named(self, job: Job) -> dict[str, Any]:
        return {"task": job.plan.name} if job.plan.name and "task" not in job.extra else {}

    def replayed(self, body: bytes) -> bytes:
        """Return it with a life more; a bare one as it is: it will get another id."""
        data = json.loads(body)
        extra = data.get("extra") if type(data) is dict else None
        if type(extra) is not dict or "task_id" not in extra:
            return body
        sends = extra["sends"] if type(extra.get("sends")) is int else 0
        return counted(body, {"sends": sends + 1, "attempt": 0, "crashes": 0, "pushes": None})


def _sort_out(extra: dict[str, Any]) -> None:
    """Take out control data of a wrong form, such that who waits for the result can be told."""
    for key, is_right in _FORMS.items():
        if key not in extra or is_right(extra[key]):
            continue
        if (value := extra.pop(key)) is not None:
            extra[_WRONG] = f"extra.{key} is {value!r:.200}"


def counted(body: bytes, changes: Mapping[str, Any]) -> bytes:
    """Return a message's body with other control data; what is false is left out."""
    data = json.loads(body)
    extra = data.get("extra")
    if type(extra) is not dict or not ("task_id" in extra or "task" in extra):
        extra = {"param": extra} if "extra" in data else {}
    extra = {**extra, **changes}
    data["extra"] = {k: v for k, v in extra.items() if v or k not in changes}
    return json.dumps(data, separators=(",", ":")).encode()
