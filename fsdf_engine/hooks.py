"""What others want to do where children come to be, start and end."""

from __future__ import annotations

import logging
from collections.abc import Callable

__all__ = ["Hook", "Hooks", "at_child", "hooks"]
log = logging.getLogger("fsdf.hooks")
Hook = Callable[[], object]


class Hooks:
    """Functions by the occasion. Registration is meant for the import of modules."""

    def __init__(self) -> None:
        self._by_occasion: dict[str, tuple[Hook, ...]] = {}

    def add(self, occasion: str, hook: Hook) -> None:
        """Call `hook()` then, after those that were added before."""
        self._by_occasion[occasion] = (*self._by_occasion.get(occasion, ()), hook)

    def call(self, occasion: str) -> None:
        """Call them all; their errors are logged. Blocks as long as they do."""
        for hook in self._by_occasion.get(occasion, ()):
            try:
                hook()
            except BaseException:  # SystemExit, too: the worker and its messages are not the hook's
                log.exception("a hook at the %s of a child failed; the others are called", occasion)


hooks = Hooks()  # of this process; what is forked has them, too


def at_child(
    *, fork: Hook | None = None, start: Hook | None = None, end: Hook | None = None
) -> None:
    """Register functions of child processes. To be called where a module is imported.

    `fork` is called in the worker command before it forks the zygote, of which its children are
    forked: let it end threads and close connections that imports have opened. `start` is called in
    each child, of whatever start method, when its modules are imported, and before its first run;
    `end` when its last run has ended, but not in one that is killed. Both run in the child's main
    thread, and keep its first run, or its end, waiting.
    """
    for occasion, hook in (("fork", fork), ("start", start), ("end", end)):
        if hook is not None:
            hooks.add(occasion, hook)
