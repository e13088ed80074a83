"""Tasks in child processes whose starts somebody listens to."""

from __future__ import annotations

import threading

from fsdf_engine import Retry, SoftTimeLimit, current, task_deco

go = threading.Event()


@task_deco("heard.children", broker_kind="memory", concurrent_mode="processes", concurrent_num=1,
           function_timeout=1.0, max_retry_times=3)  # fmt: skip
def work(n):
    """Fail once in place with 1; never end with 2."""
    if n == 1 and not current.attempt:
        raise Retry
    while n == 2:
        go.wait(0.01)


@task_deco("heard.limits", broker_kind="memory", concurrent_mode="processes", concurrent_num=1,
           soft_time_limit=0.2, function_timeout=20.0)  # fmt: skip
def warned():
    """End at the soft limit."""
    try:
        while True:
            go.wait(0.01)
    except SoftTimeLimit:
        return
