"""Colours of terminals, and pictures in those that show them."""

from __future__ import annotations

import base64
import os
import platform
import sys
from pathlib import Path
from typing import Any

__all__ = ["colored"]

BLACK, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, WHITE = range(8)
OP_SEQ = "\033[%dm"
RESET_SEQ = "\033[0m"
COLOR_SEQ = "\033[1;%dm"

IS_WINDOWS = platform.system() == "Windows"


def fg(s: int) -> str:
    """Return the sequence that begins a colour."""
    return COLOR_SEQ % s


class colored:
    """Text with colours: `str(c.red("no ", c.bold("way")))`."""

    def __init__(self, *s: object, **kwargs: Any) -> None:
        self.s = s
        self.enabled: bool = not IS_WINDOWS and kwargs.get("enabled", True)
        self.op: str = kwargs.get("op", "")
        self.names: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
        }

    def _add(self, a: object, b: object) -> str:
        return f"{a}{b}"

    def _fold_no_color(self, a: Any, b: Any) -> str:
        return "".join(_plain(part) for part in (a, b))

    def no_color(self) -> str:
        """Return the text alone."""
        return "".join(map(_plain, self.s))

    def embed(self) -> str:
        """Return the text with its colour, which does not end."""
        return (self.op if self.enabled else "") + "".join(map(str, self.s))

    def __str__(self) -> str:
        return self.embed() + (RESET_SEQ if self.enabled else "")

    def __repr__(self) -> str:
        return repr(self.no_color())

    def __add__(self, other: object) -> str:
        return f"{self}{other}"

    def node(self, s: tuple[object, ...], op: str) -> colored:
        """Return a part of its own."""
        return type(self)(*s, enabled=self.enabled, op=op)

    def black(self, *s: object) -> colored:
        return self.node(s, fg(30 + BLACK))

    def red(self, *s: object) -> colored:
        return self.node(s, fg(30 + RED))

    def green(self, *s: object) -> colored:
        return self.node(s, fg(30 + GREEN))

    def yellow(self, *s: object) -> colored:
        return self.node(s, fg(30 + YELLOW))

    def blue(self, *s: object) -> colored:
        return self.node(s, fg(30 + BLUE))

    def magenta(self, *s: object) -> colored:
        return self.node(s, fg(30 + MAGENTA))

    def cyan(self, *s: object) -> colored:
        return self.node(s, fg(30 + CYAN))

    def white(self, *s: object) -> colored:
        return self.node(s, fg(30 + WHITE))

    def bold(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 1)

    def underline(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 4)

    def blink(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 5)

    def reverse(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 7)

    def bright(self, *s: object) -> colored:
        return self.node(s, OP_SEQ % 8)

    def ired(self, *s: object) -> colored:
        return self.node(s, fg(40 + RED))

    def igreen(self, *s: object) -> colored:
        return self.node(s, fg(40 + GREEN))

    def iyellow(self, *s: object) -> colored:
        return self.node(s, fg(40 + YELLOW))

    def iblue(self, *s: object) -> colored:
        return self.node(s, fg(40 + BLUE))

    def imagenta(self, *s: object) -> colored:
        return self.node(s, fg(40 + MAGENTA))

    def icyan(self, *s: object) -> colored:
        return self.node(s, fg(40 + CYAN))

    def iwhite(self, *s: object) -> colored:
        return self.node(s, fg(40 + WHITE))

    def reset(self, *s: object) -> colored:
        return self.node(s or ("",), RESET_SEQ)


def _plain(part: Any) -> str:
    return part.no_color() if isinstance(part, colored) else str(part)


def supports_images() -> bool:
    """Tell if a person sits at an iTerm."""
    isatty = getattr(sys.stdin, "isatty", None)
    return bool(isatty and isatty() and os.environ.get("ITERM_PROFILE"))


def _read_as_base64(path: str) -> str:
    return base64.b64encode(Path(path).read_bytes()).decode("ascii")


def imgcat(path: str, inline: int = 1, preserve_aspect_ratio: int = 0, **kwargs: Any) -> str:
    """Return what makes an iTerm show the picture."""
    # tmux hands on only what is wrapped for it.
    wrapped = os.environ.get("TERM", "").startswith("screen")
    before, after = ("\033Ptmux;\033\033]", "\a\033\\") if wrapped else ("\033]", "\a")
    options = f"inline={inline};preserveAspectRatio={preserve_aspect_ratio}"
    return f"\n{before}1337;File={options}:{_read_as_base64(path)}{after}"
