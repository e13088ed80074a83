"""`PriorityConsumingControlConfig`: control over one message, as the old framework wrote it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from ..call import instant_of
from ..errors import ConfigurationError, NotYetSupported, duration_of

if TYPE_CHECKING:
    from ..call import Control

__all__ = ["PriorityConsumingControlConfig"]


class PriorityConsumingControlConfig:
    """What is decided for one message; `publish(..., priority_control_config=this)`.

    All durations are seconds; a naive `eta` is local time. The message does not run once
    `msg_expire_senconds` have passed since it was published, or `misfire_grace_time` since it might
    have started.

    Raises:
        ConfigurationError: `countdown` and `eta` contradict each other, or a duration is none.
        ArgumentError: `eta` is no instant.
        NotYetSupported: the other options cannot be changed for one message in this version.
    """

    def __init__(
        self,
        function_timeout: float | None = None,
        max_retry_times: int | None = None,
        is_print_detail_exception: bool | None = None,
        msg_expire_senconds: float | None = None,
        is_using_rpc_mode: bool | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        misfire_grace_time: float | None = None,
    ) -> None:
        later = {
            "max_retry_times": max_retry_times,
            "is_print_detail_exception": is_print_detail_exception,
            "is_using_rpc_mode": is_using_rpc_mode,
        }
        for name, value in later.items():
            if value is not None:
                raise NotYetSupported(
                    f"{name}={value!r} for one message is not implemented in this version; give it"
                    " to the task's decorator"
                )
        if countdown and eta:
            raise ConfigurationError("countdown and eta say two different times; give one of them")
        seconds = [
            duration_of(name, value or 0.0, ConfigurationError)
            for name, value in {
                "countdown": countdown,
                "function_timeout": function_timeout,
                "msg_expire_senconds": msg_expire_senconds,
                "misfire_grace_time": misfire_grace_time,
            }.items()
        ]
        self._countdown, self._timeout, self._limit, self._grace = seconds
        self._eta = instant_of("eta", eta or 0.0)
        if misfire_grace_time is not None and self._grace < 1:
            raise ConfigurationError(
                f"misfire_grace_time={misfire_grace_time!r} is less than a second; give more"
            )

    def control(self) -> Control:
        """Return it as `Task.publish` takes it now."""
        now = time.time()
        ends = [now + self._limit] if self._limit else []
        if self._grace:
            ends.append((self._eta or now + self._countdown) + self._grace)
        control: Control = {"countdown": self._countdown, "eta": self._eta}
        if self._timeout:
            control["function_timeout"] = self._timeout
        if ends:
            control["expires"] = min(ends)
        return control
