"""The suite of the process pool again, its children forked from a zygote."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is none elsewhere")
ROOT = Path(__file__).parent.parent.parent
FILES = ("test_process_pool.py", "test_child_limits.py", "test_child_logs.py")
LIMIT = 300.0  # seconds; only a hanging suite reaches it


@pytest.mark.parametrize("file", FILES)
def test_suite_passes_over_a_zygote(file):
    """In a process of its own, because this one has threads where tests run side by side."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "zygote_first"]
    # Its children look into an environment that is newer than the zygote.
    command += ["-k", "not asks_for_what_it_does_not_know_once"]
    run = subprocess.run(
        [*command, f"tests/conformance/{file}"], cwd=ROOT, text=True, timeout=LIMIT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-20_000:]
    assert " passed" in run.stdout
