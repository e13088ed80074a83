"""Results as messages to who has sent the task: not in this version."""

from __future__ import annotations

from typing import Any

from ..exceptions import ImproperlyConfigured
from .base import BaseBackend

__all__ = ("RPCBackend",)


class RPCBackend(BaseBackend):
    """Stands for the backend "rpc://", which is not there yet."""

    persistent = False

    def __init__(self, app: Any, *args: Any, **kwargs: Any) -> None:
        raise ImproperlyConfigured(
            "the result backend rpc:// is not in this version: there are redis://, rediss://,"
            " sentinel://, db+SQLALCHEMY_URL, cache+memory://, cache+memcached:// and file://"
        )
