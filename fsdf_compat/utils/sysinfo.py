"""What this machine has: processors, load, disks."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from math import ceil
from typing import Any, NamedTuple

from kombu.utils.objects import cached_property

__all__ = [
    "load_average", "df", "AUTO_CONCURRENCY", "is_auto_concurrency", "available_cpu_count",
    "cgroup_cpu_quota", "CpuBudget", "cpu_budget",
]  # fmt: skip

#: As `worker_concurrency`: as many as there are processors for us.
AUTO_CONCURRENCY = "auto"

CGROUP_ROOT = "/sys/fs/cgroup"
PROC_SELF_CGROUP = "/proc/self/cgroup"


def is_auto_concurrency(value: Any) -> bool:
    """Tell if it is "auto"."""
    return isinstance(value, str) and value.strip().lower() == AUTO_CONCURRENCY


def available_cpu_count() -> int:
    """Return how many processors this process may run on."""
    count = None
    if hasattr(os, "process_cpu_count"):
        count = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        try:
            count = len(os.sched_getaffinity(0))
        except OSError:
            pass
    return count or os.cpu_count() or 2


def _read_text(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def _parse_quota(quota_us: str, period_us: str) -> float | None:
    """Return processors; None without a limit, which is "max" (v2) or -1 (v1)."""
    try:
        quota, period = int(quota_us), int(period_us)
    except ValueError:
        return None
    return quota / period if quota > 0 and period > 0 else None


def _cgroup_paths() -> tuple[str | None, str | None, str]:
    """Return our path in cgroup v2, that of v1's hierarchy of processors, and its mount."""
    v2 = v1 = None
    mount = "cpu"
    for line in (_read_text(PROC_SELF_CGROUP) or "").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon:
            continue
        if hierarchy == "0" and not controllers:
            v2 = path
        elif "cpu" in controllers.split(","):
            v1, mount = path, controllers
    return v2, v1, mount


def _ancestors(path: str) -> list[str]:
    """Return a path and all above it; one that begins above its root begins there."""
    found = [posixpath.normpath("/" + path.lstrip("/"))]
    while found[-1] != "/":
        found.append(posixpath.dirname(found[-1]))
    return found


def _read_v2_quota(cgroup_dir: str) -> tuple[str, str] | None:
    parts = (_read_text(posixpath.join(cgroup_dir, "cpu.max")) or "").split()
    return (parts[0], parts[1]) if len(parts) == 2 else None


def _read_v1_quota(cgroup_dir: str) -> tuple[str, str] | None:
    quota = _read_text(posixpath.join(cgroup_dir, "cpu.cfs_quota_us"))
    period = _read_text(posixpath.join(cgroup_dir, "cpu.cfs_period_us"))
    return None if quota is None or period is None else (quota.strip(), period.strip())


def _min_quota(
    base: str, cgroup_path: str, read: Callable[[str], tuple[str, str] | None]
) -> float | None:
    """Return the lowest quota of a group and all above it: each of them holds."""
    raw = (read(posixpath.join(base, path.lstrip("/"))) for path in _ancestors(cgroup_path))
    quotas = [quota for found in raw if found and (quota := _parse_quota(*found)) is not None]
    return min(quotas, default=None)


def cgroup_cpu_quota() -> float | None:
    """Return the processors that our cgroups grant us; None if they set no limit."""
    v2, v1, mount = _cgroup_paths()
    if v2 is None and v1 is None:  # unreadable: that of the container
        v2 = v1 = "/"
    quota = None if v2 is None else _min_quota(CGROUP_ROOT, v2, _read_v2_quota)
    # The mount is named after the hierarchy (`cpu,cpuacct`), and often has a link named `cpu`.
    for name in dict.fromkeys((mount, "cpu")):
        if quota is None and v1 is not None:
            quota = _min_quota(posixpath.join(CGROUP_ROOT, name), v1, _read_v1_quota)
    return quota


class CpuBudget(NamedTuple):
    """How many processors to use, and why: those we may run on, and the quota."""

    count: int  # type: ignore[assignment]
    available: int
    quota: float | None


def cpu_budget(use_cgroup_quota: bool = True) -> CpuBudget:
    """Return how many processors to use: those that we may, within the quota, which is rounded
    up.
    """
    available = available_cpu_count()
    quota = cgroup_cpu_quota() if use_cgroup_quota else None
    count = available if quota is None else min(available, max(1, ceil(quota)))
    return CpuBudget(count, available, quota)


def load_average() -> tuple[float, ...]:
    """Return the load of the last minute, five and fifteen; (0.0,) where nobody counts."""
    if not hasattr(os, "getloadavg"):
        return (0.0,)
    return tuple(ceil(load * 100) / 100 for load in os.getloadavg())


class df:
    """The disk that a path is on. Sizes in KiB."""

    def __init__(self, path: Any) -> None:
        self.path = path

    @cached_property
    def stat(self) -> Any:
        return os.statvfs(os.path.abspath(self.path))

    @property
    def total_blocks(self) -> float:
        return self.stat.f_blocks * self.stat.f_frsize / 1024

    @property
    def available(self) -> float:
        return self.stat.f_bavail * self.stat.f_frsize / 1024

    @property
    def capacity(self) -> int:
        """Percent that are full, rounded up."""
        used = self.stat.f_blocks - self.stat.f_bfree
        return ceil(used * 100 / (used + self.stat.f_bavail) + 0.5)
