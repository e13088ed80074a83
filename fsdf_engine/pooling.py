"""The pool of a queue: of one part, or where its tasks are of both kinds, of two."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .contracts import Pool, PoolCapability
from .registry import pools

if TYPE_CHECKING:
    from .task import Task

__all__ = ["beside", "pool_for"]


def pool_for(task: Task[..., Any], others: Iterable[Task[..., Any]]) -> Pool:
    """Make the pool of a queue as `task` wants it, the first to be consumed; for both kinds of
    functions one that runs both, or a part for each, made as the first task of its kind wants it.
    """
    tasks = sorted(others, key=lambda each: each is not task)
    modules = sorted(frozenset[str]().union(*(each.home.modules for each in tasks)))
    kinds = {each.is_coroutine: each for each in reversed(tasks or [task])}
    both = [t for t in kinds.values() if PoolCapability.BOTH in pools.load(t.mode()).capabilities]
    parts = [
        pools.load(each.mode()).build(each.options.concurrent_num, each.options, modules)
        for each in (both[:1] or [kinds[kind] for kind in sorted(kinds)])
    ]
    return beside(*parts) if len(parts) == 2 else parts[0]


def beside(plain: Pool, coroutines: Pool | int) -> Pool:
    """Return a pool that runs coroutine functions, too: in so many slots, or in the other pool."""
    from .pools.composite import CompositePool

    if isinstance(coroutines, int):
        coroutines = pools.load("asyncio")(coroutines)  # type: ignore[call-arg]
    return CompositePool(plain, coroutines)
