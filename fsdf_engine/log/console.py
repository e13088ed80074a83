"""Log lines for a person at a terminal: colours by level, and places that can be clicked."""

from __future__ import annotations

import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .record import clock, masked_text, place_of, run_of, shown, trace_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["ConsoleHandler", "is_terminal"]
_STYLES = {
    "DEBUG": "green",
    "INFO": "cyan",
    "WARNING": "yellow",
    "ERROR": "bold red",
    "CRITICAL": "bold white on red",
}
_FRAME = re.compile(r'File "([^"<]+)", line (\d+)')


def is_terminal() -> bool:
    """Say whether stderr is a terminal where colours are wanted (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not plain and sys.stderr is not None and sys.stderr.isatty()


class ConsoleHandler(logging.Handler):
    """Writes to stderr. Places are links where the terminal knows those, and `path:line` anyway."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        from rich.console import Console

        self._console = console or Console(stderr=True, highlight=False)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; what fails is told as by the standard handlers."""
        try:
            self._console.print(self._text(record), soft_wrap=True)
        except Exception:
            self.handleError(record)

    def _text(self, record: logging.LogRecord) -> Text:
        from rich.text import Text

        record.message = record.getMessage()
        style = _STYLES.get(record.levelname, "")
        loud = style if record.levelno >= logging.WARNING else ""
        text = Text.assemble(
            (clock(record), "dim"), " ",
            (f"{record.levelname:<8}", style), " ",
            (record.name, "blue"), " ",
            (str(record.process), "dim"), " ",
            (masked_text(record.message), loud),
            (masked_text(run_of(record)), "dim"),
        )  # fmt: skip
        if place := place_of(record):
            if (at := text.plain.find(shown(place))) < 0:
                at = len(text) + 1
                text.append(f" {shown(place)}", "dim")
            text.stylize(f"link {_link(*place)}", at, at + len(shown(place)))
        if record.exc_info and not record.exc_text:
            record.exc_text = trace_text(record.exc_info)
        for block in (record.exc_text, record.stack_info):
            if block:
                text.append("\n").append_text(_traceback(masked_text(block)))
        return text


def _traceback(trace: str) -> Text:
    from rich.text import Text

    text = Text(trace, "red")
    for frame in _FRAME.finditer(trace):
        text.stylize(f"link {_link(frame[1], frame[2])}", *frame.span())
    return text


def _link(path: str, line: int | str) -> str:
    return f"{Path(os.path.abspath(path)).as_uri()}#{line}"
