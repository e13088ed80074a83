"""What is logged of a store that is asked again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["warn_of_retry"]
logger = logging.getLogger("celery.backends.base")


def warn_of_retry(
    func: Callable[..., Any], left: Any, error: BaseException, handled: BaseException | None
) -> None:
    """Log that what has failed is tried again; `handled` is the error that it was called upon."""
    with _without(handled, error):
        logger.warning(
            "Failed operation %s. Retrying %s more times.",
            getattr(func, "__name__", repr(func)), left, exc_info=error,
        )  # fmt: skip


@contextmanager
def _without(handled: BaseException | None, error: BaseException) -> Iterator[None]:
    """Have an error end before another one, which has been told already: the chain would grow."""
    while error.__context__ is not None and error.__context__ is not handled:
        error = error.__context__
    before, error.__context__ = error.__context__, None
    try:
        yield
    finally:
        error.__context__ = before
