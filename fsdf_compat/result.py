"""Results: what became of calls, of single ones and of groups. Their parts are in `_result`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ._result.eager import EagerResult
from ._result.many import GroupResult, ResultSet
from ._result.single import AsyncResult
from ._result.tuples import ResultBase, result_from_tuple
from ._state import _set_task_join_will_block, task_join_will_block
from ._upward import adopt

__all__ = (
    "AsyncResult", "EagerResult", "GroupResult", "ResultBase", "ResultSet", "allow_join_result",
    "assert_will_not_block", "denied_join_result", "result_from_tuple",
)  # fmt: skip
E_WOULDBLOCK = """\
Never call result.get() within a task!
See https://docs.celeryq.dev/en/latest/userguide/tasks.html\
#avoid-launching-synchronous-subtasks
"""
adopt(__name__, AsyncResult, EagerResult, GroupResult, ResultBase, ResultSet, result_from_tuple)


def assert_will_not_block() -> None:
    """Raise RuntimeError inside a task: its slot would wait for another one."""
    if task_join_will_block():
        raise RuntimeError(E_WOULDBLOCK)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Let results be waited for inside a task."""
    before = task_join_will_block()
    _set_task_join_will_block(False)
    try:
        yield
    finally:
        _set_task_join_will_block(before)


@contextmanager
def denied_join_result() -> Iterator[None]:
    """Let results not be waited for, as inside a task."""
    before = task_join_will_block()
    _set_task_join_will_block(True)
    try:
        yield
    finally:
        _set_task_join_will_block(before)
