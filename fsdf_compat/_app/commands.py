"""What an app can be told to do as a whole: run a command, sign its messages, drop them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from click.exceptions import Exit

from .._engine.errors import translating
from .._upward import upward
from .places import broker_of
from .settings import DEFAULT_SECURITY_DIGEST

__all__ = ["cancel", "purge_queue", "setup_security", "start", "worker_main"]


def start(self: Any, argv: Any = None) -> Any:
    """Run the command `celery` for this app; return its exit code, if it has one."""
    command = upward("bin.celery").celery
    command.params[0].default = self
    try:
        command.main(args=sys.argv if argv is None else argv, standalone_mode=False)
    except Exit as ended:
        return ended.exit_code
    finally:
        command.params[0].default = None
    return None


def worker_main(self: Any, argv: Any = None) -> None:
    """Run a worker for this app: `app.worker_main(["worker", "-l", "INFO"])`.

    Raises:
        ValueError: there is no "worker" among the arguments.
    """
    argv = sys.argv if argv is None else argv
    if "worker" not in argv:
        raise ValueError(
            "The worker sub-command must be specified in argv.\n"
            "Use app.start() to programmatically start other commands."
        )
    self.start(argv=argv)


def cancel(self: Any, ids: Iterable[str]) -> None:
    """Have messages not run that have not started; no worker has to be up. Blocks."""
    with translating():
        any_task = self.engine.remote("any", **self.engine_options(results=True))
        self.engine.cancel(ids, any_task.options)


def purge_queue(self: Any, name: str) -> int:
    """Delete what waits in a queue of ours; return how many messages that were. Blocks."""
    with translating():
        return int(broker_of(self).purge(self.amqp.wire_queue(name)))


def delayed(self: Any, name: str, limit: int) -> Any:
    """Return messages of a queue of ours that wait in the broker for their time. Blocks."""
    with translating():
        return broker_of(self).delayed(self.amqp.wire_queue(name), limit)


def setup_security(
    self: Any, allowed_serializers: Any = None, key: Any = None, key_password: Any = None,
    cert: Any = None, store: Any = None, digest: str = DEFAULT_SECURITY_DIGEST,
    serializer: str = "json",
) -> Any:  # fmt: skip
    """Have messages signed, for all apps."""
    setup = upward("security").setup_security
    return setup(allowed_serializers, key, key_password, cert, store, digest, serializer, app=self)
