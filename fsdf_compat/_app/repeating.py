"""What is tried again where a server cannot be reached, as the settings of publishing say."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from kombu.utils.functional import retry_over_time

from fsdf_engine import Unanswered, Unavailable

__all__ = ["again"]


def again(
    app: Any, call: Callable[[], None], error: Unavailable, begun: float, policy: Any,
    *, may_repeat: bool = False,
) -> None:  # fmt: skip
    """Repeat a call that has failed upon `error`, as `policy` says. Blocks.

    Within the time that a connection may take, since `begun` (of `time.monotonic`). What was sent
    and perhaps took effect is repeated only if it `may_repeat`: once done, it does nothing.

    Raises:
        Unavailable: it has not been done, or perhaps not.
    """
    within = app.conf.broker_connection_timeout
    left = within - (time.monotonic() - begun) if within else None
    if (isinstance(error, Unanswered) and not may_repeat) or (left is not None and left <= 0):
        raise error
    failed: list[Unanswered] = []

    def attempt() -> None:
        try:
            call()
        except Unanswered as unanswered:  # perhaps it is there: who sent it decides
            if may_repeat:
                raise
            failed.append(unanswered)

    retry_over_time(
        attempt,
        Unavailable,
        max_retries=policy.get("max_retries", 3),
        interval_start=policy.get("interval_start", 0),
        interval_step=policy.get("interval_step", 0.2),
        interval_max=policy.get("interval_max", 1),
        timeout=left,
    )
    if failed:
        raise failed[0]
