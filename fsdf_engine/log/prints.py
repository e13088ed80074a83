"""`print` that tells when and where, for those who ask for it."""

from __future__ import annotations

import builtins
import sys
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from .record import shortened

__all__ = ["patch_print"]
_SKY, _END = "\033[94m", "\033[0m"
_lock = threading.Lock()


def patch_print() -> Callable[[], None]:
    """Let `print` put the time and `path:line` before what it prints; return the way back.

    Only what goes to stdout is changed; sky blue where that is a terminal. `sep`, `end`, `file` and
    `flush` mean what they always do. Patching twice patches once.
    """
    with _lock:
        if not hasattr(builtins.print, "_fsdf_plain"):
            builtins.print = _telling(builtins.print)
    return _restore


def _restore() -> None:
    with _lock:
        builtins.print = getattr(builtins.print, "_fsdf_plain", builtins.print)


@lru_cache(1)
def _clock(second: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(second))


def _telling(plain: Callable[..., Any]) -> Any:
    places = lru_cache(1024)(shortened)  # as seen from where the program was when it patched
    terminal: tuple[object, bool] = None, False

    def print(*values: object, **options: Any) -> None:
        nonlocal terminal
        out = sys.stdout
        if out is None or options.get("file") not in (None, out):
            plain(*values, **options)
            return
        if terminal[0] is not out:
            terminal = out, out.isatty()
        frame = sys._getframe(1)
        separator = options.pop("sep", None)
        text = (" " if separator is None else separator).join(map(str, values))
        place = f"{places(frame.f_code.co_filename)}:{frame.f_lineno}"
        line = f"{_clock(int(time.time()))} {place} {text}"
        plain(f"{_SKY}{line}{_END}" if terminal[1] else line, **options)

    print._fsdf_plain = plain  # type: ignore[attr-defined]
    return print
