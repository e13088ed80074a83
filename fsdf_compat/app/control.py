"""`app.control`: what workers are told. In this version: which messages not to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..exceptions import NotYetSupported

if TYPE_CHECKING:
    from .base import Celery

__all__ = ["Control"]


class Control:
    """Talks to every worker of an app, now and later; none has to be up."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def revoke(
        self,
        task_id: str | Sequence[str],
        destination: Any = None,
        terminate: bool = False,
        **_: Any,
    ) -> None:
        """Have messages not run that have not started: they end as REVOKED. Blocks.

        No worker is asked, so `destination`, `wait` and their like are accepted and not needed.

        Raises:
            NotYetSupported: `terminate`, of those that run.
        """
        if terminate:
            raise NotYetSupported(
                "revoke(terminate=True): what runs cannot be ended in this version"
            )
        self._app.cancel([task_id] if isinstance(task_id, str) else task_id)

    def __getattr__(self, name: str) -> Any:
        raise NotYetSupported(f"app.control.{name} is not implemented in this version")
