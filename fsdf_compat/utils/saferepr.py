"""`repr` with limits: of the length, of the depth, and of what comes back to itself."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from decimal import Decimal
from numbers import Number
from typing import Any, NamedTuple

from .text import truncate

__all__ = ["saferepr"]


class _Open(NamedTuple):
    text: str
    end: str


class _Close(NamedTuple):
    """The end of what was opened last."""


class _Whole(NamedTuple):
    """A text that is not cut."""

    text: str


class _Key(NamedTuple):
    value: Any


def saferepr(
    o: Any, maxlen: int | None = None, maxlevels: int | None = 3, seen: set[int] | None = None
) -> str:
    """Return a text of at most about `maxlen` characters: what is left out is "...", and each
    bracket has its partner. Containers deeper than `maxlevels` are not looked into; 0: all are.

    Values that cannot be shown are told of; nothing raises.
    """
    return "".join(_pieces(o, maxlen, maxlevels, set() if seen is None else seen))


def _pieces(o: Any, left: int | None, maxlevels: int | None, seen: set[int]) -> Iterator[str]:
    closing: list[str] = []
    for token in _tokens(o, maxlevels or 0, seen):
        if left is not None and left <= 0:
            if not isinstance(token, _Close):
                yield ", ..."
                yield from reversed(closing)
                return
            # Nothing is left out of this one.
            yield closing.pop()
            continue
        if isinstance(token, _Open):
            text = token.text
            closing.append(token.end)
        elif isinstance(token, _Close):
            text = closing.pop()
        else:
            text = _shown(token, left, maxlevels)
        yield text
        if left is not None:
            left -= len(text)


def _shown(token: Any, left: int | None, maxlevels: int | None) -> str:
    if isinstance(token, _Whole):
        return token.text
    if isinstance(token, _Key):
        return saferepr(token.value, left, maxlevels)
    if isinstance(token, bytes):
        cut = left and len(token) > left
        return f"b'{_decoded(token[:left]) if cut else _decoded(token)}{'...' if cut else ''}'"
    if isinstance(token, str):
        text = truncate(token, left)  # type: ignore[arg-type]
        return "'{}'".format(text.replace("'", "\\'"))
    return truncate(_repr(token), left)  # type: ignore[arg-type]


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def _repr(value: Any) -> str:
    try:
        numeric = isinstance(value, Number) and not isinstance(value, Decimal)
        return str(value) if numeric else repr(value)
    except Exception as error:  # the value's own code
        stack = "\n".join(traceback.format_stack())
        return f"<Unrepresentable {type(value)!r}{id(value):#x}: {error!r} {stack!r}>"


def _tokens(o: Any, maxlevels: int, seen: set[int]) -> Iterator[Any]:
    """Yield brackets, separators and values; without recursion, however deep it is."""
    stack: list[Iterator[Any]] = [iter((o,))]
    while stack:
        for item in stack[-1]:
            opened = _opened(item)
            if opened is None:
                yield item
                continue
            begin, end = opened
            if maxlevels and len(stack) > maxlevels:
                yield _Whole(f"{begin}...{end}")
            elif id(item) in seen:
                name = type(item).__name__
                yield _Whole(f"<Recursion on {name} with id={id(item)}>")
            else:
                stack.append(_parts(item, begin, end, seen))
                break
        else:
            stack.pop()


def _opened(item: Any) -> tuple[str, str] | None:
    """Return the brackets of a container with something in it to be shown; else None."""
    if isinstance(item, (set, frozenset)):
        if not item:
            return None
        name = type(item).__name__
        return ("{", "}") if type(item) is set else (f"{name}({{", "})")
    if isinstance(item, (_Open, _Close, _Whole, _Key)):
        return None
    if isinstance(item, tuple):
        return "(", ",)" if len(item) == 1 else ")"
    if isinstance(item, dict):
        return "{", "}"
    return ("[", "]") if isinstance(item, list) else None


def _parts(container: Any, begin: str, end: str, seen: set[int]) -> Iterator[Any]:
    seen.add(id(container))
    yield _Open(begin, end)
    pairs = isinstance(container, dict)
    entries: Iterable[Any] = container.items() if pairs else container
    for number, entry in enumerate(entries):
        if number:
            yield _Whole(", ")
        if pairs:
            yield _Key(entry[0])
            yield _Whole(": ")
            entry = entry[1]
        yield entry
    yield _Close()
    seen.discard(id(container))
