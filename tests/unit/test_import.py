"""What `import fsdf_engine` does to the process that does it: as little as possible."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CLIENTS = {
    "celery", "eventlet", "fsdf_compat", "gevent", "greenlet", "hiredis", "kombu", "pika",
    "psycopg", "pymongo", "pymysql", "redis", "sqlalchemy", "zmq",
}  # fmt: skip
BUDGET = 0.060  # seconds that the import may take
# As installed: compiled, even where this run is told to write no bytecode.
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / f"fsdf-bytecode-{os.getpid()}"),
}

OBSERVE = """
import json, os, sys, threading
seen = []
def hook(event, args):
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        if not str(args[0]).endswith(".pyc") and "__pycache__" not in str(args[0]):
            seen.append(f"open {args}")
    elif event.startswith(("socket.", "subprocess.", "sqlite3.", "os.fork", "signal.")):
        seen.append(f"{event} {args}")
before = dict(os.environ)
sys.addaudithook(hook)
import fsdf_engine
print(json.dumps({
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    "threads": [thread.name for thread in threading.enumerate()],
    "seen": seen,
    "environment": dict(os.environ) == before,
}))
"""


def fresh(code: str, *flags: str) -> str:
    """Run code in a new interpreter that finds this source tree."""
    return subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True, text=True, timeout=120, check=True, cwd="/",
        env=ENVIRONMENT,
    ).stdout  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def compiled():
    """Write the bytecode; the first import of an installation does it once."""
    fresh("import fsdf_engine, asyncio")


def test_import_touches_nothing():
    facts = json.loads(fresh(OBSERVE))
    assert facts["seen"] == []
    assert facts["threads"] == ["MainThread"]
    assert facts["environment"]


def test_import_loads_no_client_library():
    facts = json.loads(fresh(OBSERVE))
    assert CLIENTS & set(facts["modules"]) == set()


def test_import_reads_no_configuration(tmp_path):
    code = f"import os; os.chdir({str(tmp_path)!r}); import fsdf_engine"
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "distributed_frame_config.py").write_text("raise SystemExit('it was read')")
    fresh(code)


def test_import_is_quick():
    clock = "import time; start = time.process_time(); {}; print(time.process_time() - start)"
    taken, yardstick = [], []
    for _ in range(5):
        taken.append(float(fresh(clock.format("import fsdf_engine"))))
        yardstick.append(float(fresh(clock.format("import asyncio"))))
    # On a machine that is busy just now, a module of the standard library is the yardstick.
    assert statistics.median(taken) <= max(BUDGET, 2 * statistics.median(yardstick))
