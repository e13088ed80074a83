"""What is left of a chain, as it travels: the JSON of each step, a line each, the next one last.

So a run reads the step that it sends, and hands the lines of the others on, however many there are.
A list, as it was given in the header itself, is read, too. Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
from kombu.utils.json import loads as typed

from .plain import text_of

__all__ = ["after", "opened", "written"]
_BIG = re.compile(r"\d{19}")  # perhaps a whole number that orjson would give as a float


def written(steps: Any) -> Any:
    """Return the lines of the steps of a chain; what are none of these as it is.

    Raises:
        kombu.exceptions.EncodeError: one of them has no JSON form.
    """
    if isinstance(steps, (list, tuple)) and all(isinstance(step, dict) for step in steps):
        return "\n".join([text_of(dict(step)).decode() for step in steps])
    return steps


def opened(steps: Any) -> Any:
    """Return the steps of lines, as a list; what are no lines as it is.

    Raises:
        ValueError: a line is no JSON.
    """
    if not isinstance(steps, str):
        return steps
    return [_read(line) for line in steps.split("\n")] if steps else []


def after(steps: Any) -> tuple[Any, Any]:
    """Return the next step, and those that come after it in the form in which they are.

    Raises:
        ValueError: the line is no JSON.
    """
    if not isinstance(steps, str):
        return steps[-1], steps[:-1]
    rest, _, line = steps.rpartition("\n")
    return _read(line), rest


def _read(line: str) -> Any:
    if '"__type__"' in line or _BIG.search(line):
        return typed(line)
    try:
        return orjson.loads(line)
    except ValueError:  # Python's own writes more, such as NaN
        return json.loads(line)
