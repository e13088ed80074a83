"""A call as a flat message: named arguments, and what differs from Celery's defaults. Pure.

`_engine.codec` says what the keys of `extra` mean; here they are written. A call whose serializer
is not JSON travels as `content`: [content type, encoding, text], where binary text is base64.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from kombu import serialization

from .._engine import steps
from .._engine.places import whole
from .._engine.plain import are_plain, text_of
from ..utils.nodenames import anon_nodename
from .messages import Shown, instant

__all__ = ["encoded", "named", "origin", "written"]

_NO_PLACES: tuple[tuple[str, ...], int] = (), 0
# Headers that are said in other words, or that are as everybody expects.
_ELSEWHERE = frozenset({
    "argsrepr", "expires", "id", "ignore_result", "kwargsrepr", "lang", "origin",
    "replaced_task_nesting", "retries", "root_id", "stamps", "task", "timelimit",
})  # fmt: skip


_origins: list[str] = []  # of this process
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_origins.clear)


def origin() -> str:
    """Return what messages say of who has published them: this process."""
    if not _origins:
        _origins.append(anon_nodename())
    return _origins[-1]


def named(
    places: tuple[Sequence[str], int], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], list[Any], int]:
    """Return (arguments by name, those that come first without one, how many of them by position).

    `places` are the names that positional arguments have, and how many come before these. Where not
    all have a name of their own, none is given one.
    """
    names, leading = places
    count = len(args) - leading
    if 0 <= count <= len(names):
        given = names[:count]
        if "extra" not in given and not (kwargs and not kwargs.keys().isdisjoint(given)):
            return {**dict(zip(given, args[leading:])), **kwargs}, list(args[:leading]), count
    return dict(kwargs), list(args), 0


def written(task: Any, message: Any, reply: str, serializer: str) -> bytes:
    """Return the body of a message of protocol 2, whose parts may have been changed.

    Raises:
        kombu.exceptions.EncodeError: a value has no JSON form.
    """
    headers, properties, (args, kwargs, links) = _parts(message)
    extra: dict[str, Any] = {
        "task_id": headers["id"], "publish_time": time.time(), "task": headers["task"],
        "origin": headers.get("origin") or origin(),
    }  # fmt: skip
    data: dict[str, Any] = {}
    if serializer in ("json", "application/json"):
        places = _NO_PLACES if task is None else task._parameters()
        data, leading, count = named(places, args, kwargs)
        if count:
            extra["positional"] = count
        if leading:
            extra["args"] = leading
    else:
        extra["content"] = _content(args, kwargs, serializer)
    if reply:
        extra["reply"] = reply
    if retries := headers.get("retries"):
        extra["attempt"] = retries
    if nesting := headers.get("replaced_task_nesting"):  # what it replaces was sent as often
        extra["sends"] = nesting
    if expires := headers.get("expires"):
        extra["expires"] = instant("expires", expires)
    hard, soft = headers.get("timelimit") or (None, None)
    if hard or soft:
        extra["limits"] = [soft, hard]
    if (priority := whole(properties.get("priority") or 0)) % 3:  # between Redis' four lines
        extra["priority"] = priority
    if more := _headers(task, headers, properties, links):
        extra["headers"] = more
    return encoded(data, extra)


def _parts(message: Any) -> tuple[Any, Any, Any]:
    """Return a message's headers, properties and body as protocol 2 has them."""
    headers, properties, body = message[:3]
    if isinstance(body, (tuple, list)):
        return headers, properties, body
    links = {key: body.get(key) for key in ("callbacks", "errbacks", "chord")}
    told = {key: value for key, value in body.items() if key not in _OF_BODY}
    return {**told, **headers}, properties, (body["args"], body["kwargs"], links)


def _headers(
    task: Any, headers: Mapping[str, Any], properties: Mapping[str, Any], links: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the headers, properties and links that are not as everybody expects."""
    told = {k: v for k, v in headers.items() if v is not None and k not in _ELSEWHERE}
    told.update((k, v) for k, v in links.items() if v)
    if (chain := links.get("chain")) is not None:  # that of the last step is empty
        told["chain"] = steps.written(chain)
    for key in ("argsrepr", "kwargsrepr"):
        if (text := headers.get(key)) is not None and type(text) is not Shown:
            told[key] = text
    ignored = headers.get("ignore_result")
    if ignored or (ignored is not None and ignored != getattr(task, "ignore_result", False)):
        told["ignore_result"] = ignored
    if (root := headers.get("root_id")) and root != headers["id"]:
        told["root_id"] = root
    told.update((k, headers[k]) for k in ("replaced_task_nesting", "stamps") if headers.get(k))
    if (correlated := properties.get("correlation_id")) and correlated != headers["id"]:
        told["correlation_id"] = correlated
    if own := {k: v for k, v in properties.items() if v and k not in _PROPERTIES}:
        told["properties"] = own
    if properties.get("reply_to"):
        told["reply_to"] = properties["reply_to"]
    return told


_OF_BODY = frozenset({"args", "callbacks", "chord", "errbacks", "kwargs", "taskset", "utc"})
_PROPERTIES = frozenset({
    "argsrepr", "correlation_id", "expiration", "kwargsrepr", "origin", "priority", "reply_to",
})  # fmt: skip


def _content(args: Any, kwargs: Any, serializer: str) -> list[str]:
    kind, encoding, payload = serialization.dumps((args, kwargs), serializer)
    if isinstance(payload, bytes):
        text = base64.b64encode(payload) if encoding == "binary" else payload
        payload = text.decode()
    return [kind, encoding, payload]


def encoded(data: dict[str, Any], extra: dict[str, Any]) -> bytes:
    """Return a body; `data` becomes its property.

    It is what kombu's JSON writes; of plain values orjson's bytes mean the same.
    """
    if "extra" in data:
        extra["param"] = data.pop("extra")
    parts = data.values(), extra.get("headers", {}).values(), extra.get("args", ())
    try:
        if "param" not in extra and all(map(are_plain, parts)):
            return orjson.dumps({**data, "extra": extra})
    except (TypeError, ValueError, RecursionError):  # large numbers, lone surrogates: Python's can
        pass
    data["extra"] = extra
    return text_of(data)
