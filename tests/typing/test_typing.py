"""What users write right passes the type checker, and what they write wrong does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def mypy(name):
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(HERE / name)]
    return subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent.parent).stdout


def test_right_uses_pass():
    assert mypy("right.py") == ""


def test_wrong_uses_are_errors_on_exactly_their_lines():
    expected = {
        (number, found[1])
        for number, line in enumerate((HERE / "wrong.py").read_text().splitlines(), 1)
        if (found := re.search(r"# error: ([\w-]+)$", line))
    }
    output = mypy("wrong.py")
    told = {(int(n), code) for n, code in re.findall(r":(\d+): error: .*\[([\w-]+)\]", output)}
    assert told == expected, output
