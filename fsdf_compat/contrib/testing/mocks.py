"""Messages and contexts that are not real."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import Mock

from kombu.serialization import dumps

from ...utils import uuid

__all__ = ["ContextMock", "TaskMessage", "TaskMessage1", "task_message_from_sig"]


def TaskMessage(
    name: str,
    id: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    shadow: str | None = None,
    utc: bool | None = None,
    **options: Any,
) -> Any:
    """Return a message as Celery's protocol 2 has it; `options` are headers."""
    id = id or uuid()
    message = Mock(name=f"TaskMessage-{id}")
    message.headers = {"id": id, "task": name, "shadow": shadow, **options}
    message.payload = (
        args, kwargs or {}, {"callbacks": callbacks, "errbacks": errbacks, "chain": chain},
    )  # fmt: skip
    written = dumps(message.payload, serializer="json")
    message.content_type, message.content_encoding, message.body = written
    return message


def TaskMessage1(
    name: str,
    id: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    **options: Any,
) -> Any:
    """Return a message as Celery's protocol 1 has it."""
    id = id or uuid()
    message = Mock(name=f"TaskMessage-{id}")
    message.headers = {}
    message.payload = {
        "task": name, "id": id, "args": args, "kwargs": kwargs or {}, "callbacks": callbacks,
        "errbacks": errbacks, **options,
    }  # fmt: skip
    message.content_type, message.content_encoding, message.body = dumps(message.payload)
    return message


def _instant(app: Any, seconds: Any, given: Any) -> Any:
    """Return an instant as text: `given`, or so many seconds from now."""
    found = app.now() + timedelta(seconds=seconds) if seconds else given
    return found.isoformat() if isinstance(found, datetime) else found


def task_message_from_sig(
    app: Any, sig: Any, utc: bool = True, TaskMessage: Any = TaskMessage
) -> Any:
    """Return the message by which a signature is sent."""
    sig.freeze()
    options = sig.options
    links = {
        name: [dict(each) for each in options.pop(key, None) or ()] or None
        for name, key in (("callbacks", "link"), ("errbacks", "link_error"))
    }
    eta = _instant(app, options.pop("countdown", None), options.pop("eta", None))
    expires = options.pop("expires", None)
    seconds = expires if isinstance(expires, numbers.Real) else None
    expires = _instant(app, seconds, expires)
    more = {"eta": eta, "expires": expires, "utc": utc, **links, **options}
    return TaskMessage(sig.task, id=sig.id, args=sig.args, kwargs=sig.kwargs, **more)


class _ContextMock(Mock):
    """`with` looks for these in the class."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        pass


def ContextMock(*args: Any, **kwargs: Any) -> Any:
    """Return a mock that `with` takes."""
    made: Any = _ContextMock(*args, **kwargs)
    for name in ("__enter__", "__exit__"):
        made.attach_mock(_ContextMock(), name)
    made.__enter__.return_value = made
    made.__exit__.return_value = None  # else it would swallow exceptions
    return made
