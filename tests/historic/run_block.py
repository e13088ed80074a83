"""Run a script as the main program, with a clock that is faster for that script alone.

python run_block.py SCRIPT SPEED
"""

from __future__ import annotations

import builtins
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

speed = float(sys.argv[2])
began = time.time()
fast_time = SimpleNamespace(
    time=lambda: began + (time.time() - began) * speed,
    sleep=lambda seconds: time.sleep(seconds / speed),
    strftime=time.strftime,
)


def _import(name: str, *args: Any) -> Any:
    return fast_time if name == "time" else builtins.__import__(name, *args)


main: dict[str, Any] = {
    "__name__": "__main__",
    "__file__": sys.argv[1],
    "__builtins__": {**vars(builtins), "__import__": _import},
}
code = compile(Path(sys.argv[1]).read_bytes(), sys.argv[1], "exec")
exec(code, main)
