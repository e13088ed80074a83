"""What the engine raises, as Celery's users know it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kombu.exceptions import OperationalError

from fsdf_engine import BrokerError, ConfigurationError, ServerRefused

from ..exceptions import ImproperlyConfigured

__all__ = ["RAISED", "WRONG", "translated", "translating"]
RAISED = (BrokerError, ConfigurationError)  # what is translated
WRONG = (ImproperlyConfigured, ConfigurationError)  # no traceback tells more of a wrong setting


def translated(error: BaseException) -> Exception:
    """Return an error of the engine as one of Celery's: `raise translated(error) from error`.

    A setting that is wrong is an ImproperlyConfigured. Of servers that are away, refuse us or give
    no answer it is kombu's OperationalError: later they may answer.
    """
    wrong = isinstance(error, ConfigurationError) and not isinstance(error, ServerRefused)
    return (ImproperlyConfigured if wrong else OperationalError)(str(error))


@contextmanager
def translating() -> Iterator[None]:
    """Raise so what the engine raises meanwhile."""
    try:
        yield
    except RAISED as error:
        raise translated(error) from error
