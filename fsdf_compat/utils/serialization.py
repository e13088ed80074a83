"""Exceptions that can be pickled, and values that can be JSON."""

from __future__ import annotations

import datetime
import numbers
import pickle
import sys
from base64 import b64decode as base64decode
from base64 import b64encode as base64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any, NoReturn

from kombu.abstract import Object as KombuObject
from kombu.utils.encoding import bytes_to_str, safe_repr, str_to_bytes

__all__ = [
    "UnpickleableExceptionWrapper", "subclass_exception", "find_pickleable_exception",
    "create_exception_cls", "get_pickleable_exception", "get_pickleable_etype",
    "get_pickled_exception", "strtobool",
]  # fmt: skip

#: Too general to stand for an exception.
unwanted_base_classes = (Exception, BaseException, object)

STRTOBOOL_DEFAULT_TABLE = {
    "false": False, "no": False, "0": False, "off": False,
    "true": True, "yes": True, "1": True, "on": True,
}  # fmt: skip


def subclass_exception(name: str, parent: type, module: str) -> Any:
    """Return a new class of exceptions, as if it were declared in `module`."""
    return type(name, (parent,), {"__module__": module})


def create_exception_cls(name: str, module: str, parent: type | None = None) -> Any:
    """Return a new class of exceptions."""
    return subclass_exception(name, parent or Exception, module)


def itermro(cls: type, stop: Collection[type]) -> Iterator[type]:
    """Yield the classes of the MRO before the first one in `stop`."""
    return takewhile(lambda node: node not in stop, cls.__mro__)


def find_pickleable_exception(
    exc: BaseException,
    loads: Callable[[bytes], Any] = pickle.loads,
    dumps: Callable[[Any], bytes] = pickle.dumps,
) -> Any:
    """Return the exception made anew with its nearest class that survives pickle; else None."""
    for cls in itermro(type(exc), unwanted_base_classes):
        try:
            made = cls(*getattr(exc, "args", []))
            loads(dumps(made))
        except Exception:  # the constructors are the user's
            continue
        return made
    return None


def ensure_serializable(items: Iterable[Any], encoder: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Return the items, with the repr of those that `encoder` refuses."""

    def safe(item: Any) -> Any:
        try:
            encoder(item)
        except Exception:  # the item's own code runs
            return safe_repr(item)
        return item

    return tuple(map(safe, items))


class UnpickleableExceptionWrapper(Exception):
    """Stands for an exception that cannot be pickled: where it is declared, its arguments."""

    exc_module: str | None = None
    exc_cls_name: str | None = None
    exc_args: Any = None

    def __init__(
        self, exc_module: str, exc_cls_name: str, exc_args: Iterable[Any], text: str | None = None
    ) -> None:
        self.exc_module, self.exc_cls_name, self.text = exc_module, exc_cls_name, text
        self.exc_args = ensure_serializable(exc_args, lambda v: pickle.loads(pickle.dumps(v)))
        super().__init__(exc_module, exc_cls_name, self.exc_args, text)

    def restore(self) -> Any:
        """Return an exception of a new class with the old one's name."""
        return create_exception_cls(str(self.exc_cls_name), str(self.exc_module))(*self.exc_args)

    def __str__(self) -> str:
        return str(self.text)

    @classmethod
    def from_exception(cls, exc: BaseException) -> UnpickleableExceptionWrapper:
        """Return the stand-in of an exception, with its traceback."""
        type_ = type(exc)
        made = cls(type_.__module__, type_.__name__, getattr(exc, "args", []), safe_repr(exc))
        return made.with_traceback(getattr(exc, "__traceback__", None))


def get_pickleable_exception(exc: Any) -> Any:
    """Return the exception if it survives pickle, else what stands nearest to it."""
    try:
        pickle.loads(pickle.dumps(exc))
    except Exception:  # its own code runs
        nearest = find_pickleable_exception(exc)
        return nearest or UnpickleableExceptionWrapper.from_exception(exc)
    return exc


def get_pickleable_etype(
    cls: Any,
    loads: Callable[[bytes], Any] = pickle.loads,
    dumps: Callable[[Any], bytes] = pickle.dumps,
) -> Any:
    """Return the class if it survives pickle, else Exception."""
    try:
        loads(dumps(cls))
    except Exception:  # its own code runs
        return Exception
    return cls


def get_pickled_exception(exc: Any) -> Any:
    """Return what `get_pickleable_exception` was given, as far as it can be had."""
    return exc.restore() if isinstance(exc, UnpickleableExceptionWrapper) else exc


def b64encode(s: Any) -> str:
    """Return the base64 of text or bytes, as text."""
    return bytes_to_str(base64encode(str_to_bytes(s)))


def b64decode(s: Any) -> bytes:
    """Return the bytes of base64."""
    return base64decode(str_to_bytes(s))


def strtobool(term: Any, table: Mapping[str, bool] | None = None) -> Any:
    """Return what a text such as "yes" or "off" means; what is no text, as it is."""
    if not isinstance(term, str):
        return term
    try:
        return (STRTOBOOL_DEFAULT_TABLE if table is None else table)[term.lower()]
    except KeyError:
        raise TypeError(f"Cannot coerce {term!r} to type bool") from None


def _datetime_to_json(dt: Any) -> str:
    # ECMA-262 has milliseconds, and Z.
    precise = getattr(dt, "microsecond", 0)
    if not isinstance(dt, (datetime.datetime, datetime.time)):
        return dt.isoformat()
    text = dt.isoformat(timespec="milliseconds" if precise else "auto")
    if isinstance(dt, datetime.time):
        return text[:12] if precise else text
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def jsonify(
    obj: Any,
    builtin_types: tuple[type, ...] = (numbers.Real, str),
    key: Any = None,
    keyfilter: Callable[[Any], Any] | None = None,
    unknown_type_filter: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the value with nothing in it that JSON does not have.

    Raises: ValueError: something is left, and there is no `unknown_type_filter` for it.
    """

    def inner(value: Any, key: Any = key) -> Any:
        return jsonify(value, builtin_types, key, keyfilter, unknown_type_filter)

    if isinstance(obj, KombuObject):
        obj = obj.as_dict(recurse=True)
    if obj is None or isinstance(obj, builtin_types):
        return obj
    if isinstance(obj, (tuple, list)):
        return [inner(value) for value in obj]
    if isinstance(obj, dict):
        return {k: inner(v, k) for k, v in obj.items() if not keyfilter or keyfilter(k)}
    if isinstance(obj, (datetime.date, datetime.time)):
        return _datetime_to_json(obj)
    if isinstance(obj, datetime.timedelta):
        return str(obj)
    if unknown_type_filter is None:
        raise ValueError(f"Unsupported type: {type(obj)!r} {obj!r} (parent: {key})")
    return unknown_type_filter(obj)


def raise_with_context(exc: BaseException) -> NoReturn:
    """Raise it, caused by the exception that is handled now, if there is another."""
    handled = sys.exc_info()[1]
    if handled is None or handled is exc:
        raise exc
    raise exc from handled
