"""Every interpreter of these tests prints a line in one piece, whichever threads print."""

from __future__ import annotations

import builtins
import sys


def _print(*values: object, flush: bool = True) -> None:
    sys.stdout.write(" ".join(map(str, values)) + "\n")


builtins.print = _print  # type: ignore[assignment]
