"""Logging for people: what `fsdf run` installs, to be used in programs of one's own, too.

Nothing of it is imported before a consumer starts, and it changes nothing by being imported.
"""

from __future__ import annotations

from .prints import patch_print
from .record import JsonFormatter, RunContext, TextFormatter
from .setup import install

__all__ = ["JsonFormatter", "RunContext", "TextFormatter", "install", "patch_print"]
