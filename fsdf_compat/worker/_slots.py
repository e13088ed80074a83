"""How many runs a worker has at once."""

from __future__ import annotations

import logging
from typing import Any

from billiard import cpu_count

from ..utils.sysinfo import cpu_budget, is_auto_concurrency

__all__ = ["Told", "configured", "sized"]
Told = tuple[int, str, tuple[Any, ...]]  # what to log: level, text, arguments


def configured(told: Any) -> tuple[Any, Told | None]:
    """Return a number, or "auto" as it is; and what to say of a value that is neither."""
    said: Told | None = None
    if told and not is_auto_concurrency(told):
        try:
            told = int(told)
        except ValueError:
            text = "worker_concurrency=%r is no whole number and not 'auto'; taking the default"
            said, told = (logging.WARNING, text, (told,)), None
    if told:
        return told, said
    try:
        return int(cpu_count()), said
    except NotImplementedError:
        return 2, said


def sized(pool: str, has_processes: bool) -> tuple[int, Told]:
    """Return what "auto" is, and what to say of it: processes share what the cgroup grants."""
    budget = cpu_budget(use_cgroup_quota=has_processes)
    if not has_processes:
        text = "worker_concurrency='auto' sizes prefork only; pool=%s has all %d processors"
        return budget.count, (logging.INFO, text, (pool, budget.count))
    quota = "no quota" if budget.quota is None else f"quota={budget.quota:.2f}"
    text = "worker_concurrency='auto' resolved to %d (pool=%s, %s, processors=%d)"
    return budget.count, (logging.INFO, text, (budget.count, pool, quota, budget.available))
