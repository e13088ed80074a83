"""How a backend encodes what it stores, and what that is: Celery's meta, in its serializer."""

from __future__ import annotations

import warnings
from datetime import timedelta
from typing import Any

from kombu.compression import encoders as compression_encoders
from kombu.compression import get_encoder as get_compression_encoder
from kombu.serialization import dumps, loads
from kombu.utils.encoding import ensure_bytes

from .. import states
from .._upward import LateModule
from ..exceptions import ImproperlyConfigured
from ..utils.serialization import get_pickleable_exception, get_pickled_exception
from .part import Part
from .payload import PLAIN, compressed, decompressed
from .stored import exception_form, exception_of

__all__ = ["EXCEPTION_ABLE_CODECS", "Encoding"]
_public = LateModule("backends.base")
EXCEPTION_ABLE_CODECS = frozenset({"pickle"})


class Encoding(Part):
    """The part of a backend that encodes. Its methods are those of the backend."""

    READY_STATES = states.READY_STATES
    UNREADY_STATES = states.UNREADY_STATES
    EXCEPTION_STATES = states.EXCEPTION_STATES

    persistent = True
    supports_result_compression = False  # a payload may be any bytes

    def _warn(self, what: str) -> None:
        warnings.warn(f"The {type(self).__name__} result backend {what}.", UserWarning, 3)

    def prepare_exception(self, exc: Any, serializer: Any = None) -> Any:
        """Return an exception in the form that can be stored."""
        serializer = self.serializer if serializer is None else serializer
        if serializer in EXCEPTION_ABLE_CODECS:
            return get_pickleable_exception(exc)
        return exception_form(exc, self.encode)

    def exception_to_python(self, exc: Any) -> Any:
        """Return the exception that was stored so; only classes known here are made."""
        if not exc:
            return None
        if isinstance(exc, BaseException):
            return get_pickled_exception(exc) if self.serializer in EXCEPTION_ABLE_CODECS else exc
        return exception_of(exc, _public.__name__)

    def prepare_value(self, result: Any) -> Any:
        """Return a value in the form that can be stored: results as tuples."""
        plain = type(result) in PLAIN  # no look at the public module for these
        if not plain and self.serializer != "pickle" and isinstance(result, _public.ResultBase):
            return result.as_tuple()
        return result

    def encode_result(self, result: Any, state: str) -> Any:
        """Return a value, or an exception in a state of one, in the form that can be stored."""
        if state in self.EXCEPTION_STATES and isinstance(result, BaseException):
            return self.prepare_exception(result)
        return self.prepare_value(result)

    def encode(self, data: Any) -> Any:
        """Return data as it is stored."""
        payload = self._encode(data)[2]
        return compressed(payload, self.compression) if self.compression else payload

    def _encode(self, data: Any) -> tuple[Any, Any, Any]:
        return dumps(data, serializer=self.serializer)

    def decode(self, payload: Any) -> Any:
        """Return the data of what is stored, compressed or not."""
        if payload is None:
            return None
        return loads(
            decompressed(payload or str(payload)),
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            accept=self.accept,
        )

    def decode_result(self, payload: Any) -> Any:
        """Return what is stored about a task."""
        return self.meta_from_decoded(self.decode(payload))

    def meta_from_decoded(self, meta: Any) -> Any:
        """Let an exception in it be one."""
        if meta["status"] in self.EXCEPTION_STATES:
            meta["result"] = self.exception_to_python(meta["result"])
        return meta

    def prepare_compression(self, compression: Any) -> Any:
        """Return how to compress; None: not at all, also where this backend cannot.

        Raises:
            ImproperlyConfigured: there is no such way.
        """
        if not compression:
            return None
        if not self.supports_result_compression:
            self._warn("cannot store compressed payloads: result_compression is ignored")
            return None
        try:
            get_compression_encoder(compression)
        except KeyError as error:
            names = ", ".join(sorted(compression_encoders()))
            raise ImproperlyConfigured(
                f"Unknown compression method {compression!r} configured in result_compression."
                f" Available methods are: {names}."
            ) from error
        return compression

    def prepare_expires(self, value: Any, type: Any = None) -> Any:
        """Return a life in seconds; without a value as configured."""
        if value is None:
            value = self.app.conf.result_expires
        if isinstance(value, timedelta):
            value = value.total_seconds()
        return type(value) if value is not None and type else value

    def expires_for_state(self, state: str) -> Any:
        """Return how many seconds what is stored of a state lasts."""
        return self.expires

    def prepare_persistent(self, enabled: Any = None) -> Any:
        """Return whether messages of results outlive the broker."""
        given = self.app.conf.result_persistent if enabled is None else enabled
        return self.persistent if given is None else given

    def _get_result_meta(
        self,
        result: Any,
        state: str,
        traceback: Any,
        request: Any,
        format_date: bool = True,
        encode: bool = False,
    ) -> dict[str, Any]:
        """Return all that is stored about a task in a state."""
        done = self.app.now() if state in self.READY_STATES else None
        meta = {
            "status": state,
            "result": result,
            "traceback": traceback,
            "children": self.current_task_children(request),
            "date_done": done.isoformat() if done and format_date else done,
        }
        if request:
            for name, key in (("group", "group_id"), ("parent_id", "parent_id")):
                if value := getattr(request, name, None):
                    meta[key] = value
            if self._extends():
                meta.update(self._extended(request, encode))
        return meta

    def _extends(self) -> Any:
        """Return whether more is stored about a task; looked up again when a setting changes."""
        conf = self.app.conf
        revision = getattr(conf, "revision", None)
        known = self.__dict__.get("_extension")
        if revision is None or known is None or known[0] is not revision:
            known = self.__dict__["_extension"] = revision, conf["result_extended"]
        return known[1]

    def _extended(self, request: Any, encode: bool) -> dict[str, Any]:
        """Return what `result_extended` adds."""
        info = getattr(request, "delivery_info", None)
        meta = {
            "name": getattr(request, "task", None),
            "args": getattr(request, "args", None),
            "kwargs": getattr(request, "kwargs", None),
            "worker": getattr(request, "hostname", None),
            "retries": getattr(request, "retries", None),
            "queue": info.get("routing_key") if info else None,
        }
        if stamps := getattr(request, "stamps", None):
            names = request.stamped_headers
            meta["stamped_headers"] = names
            meta.update({k: v for k, v in stamps.items() if k in (names or ())})
        if encode:
            for name in ("args", "kwargs"):
                meta[name] = ensure_bytes(self.encode(meta[name]))
        return meta
