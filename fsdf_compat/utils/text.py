"""Functions that format text."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from functools import partial
from pprint import pformat
from re import Match, Pattern
from textwrap import fill
from typing import Any

__all__ = [
    "abbr", "abbrtask", "dedent", "dedent_initial", "ensure_newlines", "ensure_sep",
    "fill_paragraphs", "indent", "join", "pluralize", "pretty", "str_to_list", "simple_format",
    "truncate",
]  # fmt: skip

RE_FORMAT = re.compile(r"%([%\w])")


def str_to_list(s: Any) -> Any:
    """Split a text at its commas; anything else stays."""
    return s.split(",") if isinstance(s, str) else s


def dedent_initial(s: str, n: int = 4) -> str:
    """Take the first `n` characters away if they are blanks."""
    return s.removeprefix(" " * n)


def dedent(s: str, sep: str = "\n") -> str:
    """Take four blanks off the start of each line."""
    return sep.join(map(dedent_initial, s.splitlines()))


def fill_paragraphs(s: str, width: int, sep: str = "\n") -> str:
    """Wrap each paragraph at `width`."""
    return sep.join(fill(paragraph, width) for paragraph in s.split(sep))


def join(l: Iterable[str], sep: str = "\n") -> str:
    """Join what is not empty."""
    return sep.join(filter(None, l))


def ensure_sep(sep: str, s: str, n: int = 2) -> str:
    """Return the text with separators added until it has `n`."""
    return s + sep * (n - s.count(sep))


ensure_newlines = partial(ensure_sep, "\n")


def abbr(S: str | None, max: int, ellipsis: str | bool = "...") -> str:
    """Cut a text at `max`, the ellipsis counted."""
    if S is None:
        return "???"
    if len(S) <= max:
        return S
    end = ellipsis if isinstance(ellipsis, str) else ""
    return S[: max - len(end)] + end


def abbrtask(S: str | None, max: int) -> str:
    """Cut the module in the name of a task, so that it is no longer than `max`."""
    if S is None or len(S) <= max:
        return "???" if S is None else S
    module, _, name = S.rpartition(".")
    return f"{abbr(module, max - len(name) - 3, False)}[.]{name}"


def indent(t: str, indent: int = 0, sep: str = "\n") -> str:
    """Put blanks before each line."""
    return sep.join(" " * indent + line for line in t.split(sep))


def truncate(s: str, maxlen: int = 128, suffix: str = "...") -> str:
    """Cut a text of `maxlen` or more at its last word."""
    if not maxlen or len(s) < maxlen:
        return s
    return s[:maxlen].rsplit(" ", 1)[0] + suffix


def pluralize(n: float, text: str, suffix: str = "s") -> str:
    """Return the word for this many."""
    return text if n == 1 else text + suffix


def pretty(value: Any, width: int = 80, nl_width: int = 80, sep: str = "\n", **kw: Any) -> str:
    """Format a value for the console; dicts and tuples begin on a line of their own."""
    if isinstance(value, dict):
        return f"{sep} {pformat(value, 4, nl_width)[1:]}"
    if isinstance(value, tuple):
        return f"{sep}    {pformat(value, width=nl_width, **kw)}"
    return pformat(value, width=width, **kw)


def match_case(s: str, other: str) -> str:
    """Return `s` in capitals if `other` is."""
    return s.upper() if other.isupper() else s.lower()


def simple_format(
    s: str,
    keys: dict[str, str | Callable[[], Any]],
    pattern: Pattern[str] = RE_FORMAT,
    expand: str = r"\1",
) -> str:
    """Replace `%x` by what `keys` has for x, or by what the function there returns."""

    def replaced(match: Match[str]) -> Any:
        key = match.expand(expand)
        if key not in known:
            raise ValueError(
                f"Unknown format %{key} in string {s!r}; write %%{key} where it is to stay, and"
                " once more for each time that it is expanded"
            )
        value = known[key]
        return value() if callable(value) else value

    known = {"%": "%", **keys}
    return pattern.sub(replaced, s) if s else s


def remove_repeating_from_task(task_name: str, s: str) -> str:
    """Leave the module of `task_name` out of `s`, but for its first place."""
    module = str(task_name).rpartition(".")[0]
    return remove_repeating(f"{module}.", s) if module else s


def remove_repeating(substr: str, s: str) -> str:
    """Leave `substr` out of `s` wherever a name begins with it, but for its first place."""
    head, found, rest = s.partition(substr)
    if not found:
        return s
    # Inside a longer name (`app.` in `webapp.` and `my-app.`) it is another one.
    return head + found + re.sub(rf"(?<![\w.-]){re.escape(substr)}", "", rest)


StringIO = io.StringIO


class WhateverIO(io.StringIO):
    """A text in memory that takes bytes, too."""

    def __init__(self, v: bytes | str | None = None, *a: Any, **kw: Any) -> None:
        super().__init__(v.decode() if isinstance(v, bytes) else v, *a, **kw)

    def write(self, data: bytes | str) -> int:
        return super().write(data.decode() if isinstance(data, bytes) else data)
