"""What is left of a chain, as it travels: the JSON of each step, a line each, the next one last.

So a run reads the step that it sends, and hands the lines of the others on, however many there are.
A list, as it was given in the header itself, is read, too. Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
from kombu.exceptions import DecodeError
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
        # a JSON that users have registered may be indented
        return "\n".join([text_of(dict(s)).decode().replace("\n", " ") for s in steps])
    return steps


def opened(steps: Any) -> Any:
    """Return the steps of lines, as a list; what are no lines as it is.

    Values that cannot be read here are as they came, and what is no step is left out: so whoever
    waits for any of them can be told.
    """
    if not isinstance(steps, str):
        return steps
    return [step for line in steps.split("\n") if isinstance(step := _as_far(line), dict)]


def after(steps: Any) -> tuple[Any, Any]:
    """Return the next step, and those that come after it in the form in which they are.

    Raises:
        kombu.exceptions.DecodeError: it cannot be read.
    """
    if not isinstance(steps, str):
        return steps[-1], steps[:-1]
    rest, _, line = steps.rpartition("\n")
    try:
        step = _read(line)
    except Exception as error:  # of a decoder that users have registered, too
        raise DecodeError(f"the next step of the chain cannot be read: {error!r}") from error
    if not isinstance(step, dict):
        raise DecodeError(f"the next step of the chain is no JSON object: {line:.200}")
    return step, rest


def _read(line: str) -> Any:
    if '"__type__"' in line or _BIG.search(line):
        return typed(line)
    try:
        return orjson.loads(line)
    except ValueError:  # Python's own writes more, such as NaN
        return json.loads(line)


def _as_far(line: str) -> Any:
    """Return what a line holds, as far as it can be read."""
    for read in (_read, json.loads):
        try:
            return read(line)
        except Exception:  # see `after`
            continue
    return None
