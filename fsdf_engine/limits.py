"""The limits of a run: seconds after which an exception is raised in it, and after which it ends.

A message's own stand in `extra.limits` as [soft, hard]; 0 or null: as its task says. Pure.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .contracts import Job

__all__ = ["check_limits", "limits_of"]


def check_limits(limits: Any) -> None:
    """Refuse what is no pair of a soft and a hard limit.

    Raises:
        ValueError: says what is wrong with it.
    """
    if not isinstance(limits, (list, tuple)) or len(limits) != 2:
        raise ValueError(f"the limits {limits!r} are no pair of a soft and a hard one")
    for limit in limits:
        number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
        if limit is not None and not (number and 0 <= limit <= sys.float_info.max):
            raise ValueError(f"the limit {limit!r} is no number of seconds of 0 or more")
    soft, hard = limits
    if soft and hard and soft > hard:
        raise ValueError(f"the soft limit of {soft} s is above the hard one of {hard} s")


def limits_of(job: Job) -> tuple[float, float]:
    """Return a job's soft and hard limit, 0 where it has none: the message's, else the task's."""
    extra: Mapping[str, Any] = job.extra
    soft, hard = extra.get("limits") or (0.0, 0.0)
    return soft or job.plan.soft, hard or job.plan.timeout
