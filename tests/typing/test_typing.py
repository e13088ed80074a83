"""What users write right passes the type checker, and what they write wrong does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def mypy(name):
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(HERE / name)]
    return subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent.parent).stdout


@pytest.mark.parametrize("name", ["right.py", "right_celery.py"])
def test_right_uses_pass(name):
    assert mypy(name) == ""


@pytest.mark.parametrize("name", ["wrong.py", "wrong_celery.py"])
def test_wrong_uses_are_errors_on_exactly_their_lines(name):
    expected = {
        (number, found[1])
        for number, line in enumerate((HERE / name).read_text().splitlines(), 1)
        if (found := re.search(r"# error: ([\w-]+)$", line))
    }
    output = mypy(name)
    told = {(int(n), code) for n, code in re.findall(r":(\d+): error: .*\[([\w-]+)\]", output)}
    assert told == expected, output
