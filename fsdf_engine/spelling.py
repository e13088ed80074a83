"""Words for messages: suggestions for misspelt names, URLs without their passwords."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["did_you_mean", "masked"]


def did_you_mean(word: str, known: Iterable[str], synonyms: Iterable[str] = ()) -> str:
    """Return what ends an error message: "; did you mean 'redis'?", or all that are known.

    A synonym may be suggested but is not listed.
    """
    from difflib import get_close_matches  # only errors need it, and it is slow to import

    names = sorted(set(known))
    by_folded = {name.casefold(): name for name in (*synonyms, *names)}
    if close := get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6):
        return f"; did you mean {by_folded[close[0]]!r}?"
    return f"; there are {', '.join(names)}" if names else ""


def masked(url: str) -> str:
    """Return a URL with its passwords replaced, fit for logs and messages; other text unchanged."""
    url = re.sub(r"://([^:@/]*):.*@", r"://\1:***@", url)
    return re.sub(r"([?&]\w*password=)[^&#]*", r"\1***", url)
