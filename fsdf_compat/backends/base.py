"""What all result backends have in common. The parts are in `_backends`."""

from __future__ import annotations

import time
from typing import Any

from .. import states
from .._backends.core import Backend, _nulldict, pending_results_t, unpickle_backend
from .._backends.encoding import EXCEPTION_ABLE_CODECS
from .._backends.failing import chord_error as _create_chord_error_with_cause
from .._backends.failing import result_errbacks as _result_errbacks
from .._backends.failing import stand_in_request as _create_fake_task_request
from .._backends.keyvalue import BaseKeyValueStoreBackend
from .._backends.payload import MAGIC as COMPRESSED_PAYLOAD_MAGIC
from .._backends.payload import compressed as compress_payload
from .._backends.payload import decompressed as decompress_payload
from .._backends.waiting import SyncBackendMixin
from .._state import get_current_task
from .._upward import adopt
from ..canvas import chord, group, maybe_signature
from ..result import GroupResult, ResultBase, ResultSet, allow_join_result, result_from_tuple

__all__ = ("BaseBackend", "DisabledBackend", "KeyValueStoreBackend")
adopt(__name__, Backend, BaseKeyValueStoreBackend, SyncBackendMixin, unpickle_backend)
E_NO_BACKEND = "No result backend is configured: set result_backend."
E_CHORD_NO_BACKEND = (
    "Starting chords requires a result backend to be configured. A group that is followed by a task"
    " is a chord, too."
)


class BaseBackend(Backend, SyncBackendMixin):
    """A backend that is looked into by who waits."""


BaseDictBackend = BaseBackend


class KeyValueStoreBackend(BaseKeyValueStoreBackend, SyncBackendMixin):
    """A backend that keeps bytes under keys, and is looked into by who waits."""


class DisabledBackend(BaseBackend):
    """Keeps nothing."""

    _cache: Any = {}

    def store_result(self, *args: Any, **kwargs: Any) -> None:
        """Keep nothing."""

    def ensure_chords_allowed(self) -> None:
        """There are no chords without results."""
        raise NotImplementedError(E_CHORD_NO_BACKEND)

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        """Return its URL."""
        return "disabled://"

    def _is_disabled(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(E_NO_BACKEND)

    get_state = get_status = get_result = get_traceback = _is_disabled
    get_task_meta_for = wait_for = get_many = _is_disabled
