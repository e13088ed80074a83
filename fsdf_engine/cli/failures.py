"""What is shown when the user's own code raises: its frames, without ours and the importer's."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from ..errors import ConfigurationError, FsdfError
from ..frame_file import BrokenFile

__all__ = ["BrokenModule", "show"]
_PACKAGE = Path(__file__).parent.parent
_OURS = tuple(f"{_PACKAGE.with_name(name)}{os.sep}" for name in ("fsdf_engine", "fsdf_compat"))


class BrokenModule(ConfigurationError):
    """A module raised when it was imported; its own exception is the cause."""


def show(error: FsdfError) -> None:
    """Print an error in one line; before it, where that was the user's code, its traceback."""
    broken = error
    while isinstance(broken.__cause__, (BrokenModule, BrokenFile)):
        broken = broken.__cause__  # a module whose import reads a broken configuration
    if isinstance(broken, (BrokenModule, BrokenFile)) and broken.__cause__ is not None:
        shown = traceback.TracebackException.from_exception(broken.__cause__)
        _trim(shown)
        print("".join(shown.format()), end="", file=sys.stderr)
    print(f"fsdf: {broken}", file=sys.stderr)


def _trim(shown: traceback.TracebackException | None) -> None:
    """Take out of an exception, and of those before it, the frames that are not the user's."""
    while shown is not None:
        for index in reversed(range(len(shown.stack))):
            name = shown.stack[index].filename
            if name.startswith(("<frozen ", *_OURS)) or "/importlib/" in name.replace("\\", "/"):
                del shown.stack[index]
        for other in (shown.__cause__, *(getattr(shown, "exceptions", None) or ())):
            _trim(other)
        shown = shown.__context__
