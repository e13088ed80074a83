"""Parsers that answer a wrong spelling with the right one."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..spelling import did_you_mean

__all__ = ["Parser", "number", "whole"]


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations: a script that has one would break when an option is added."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; what is unknown is told here, where the command's own options are known."""
        self._given = list(sys.argv[1:] if args is None else args)
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        """Show the usage and what is wrong; end with code 2."""
        if "COMMAND" in message and "required" in message:
            if not self._given:  # a command alone asks what there is
                self.exit(2, self.format_help())
            message = f"unrecognized arguments: {' '.join(self._given)}"
        hint = ""
        if choice := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            subject = message.partition(":")[0].removeprefix("argument ").replace("COMMAND", "")
            known = re.findall(r"[\w-]+", choice[2])
            message = f"{subject.strip() or 'unknown command'} {choice[1]!r}"
            hint = did_you_mean(choice[1], known)
        elif option := re.search(r"unrecognized arguments: (-[\w-]+)", message):
            known = [name for name in self._option_string_actions if name.startswith("--")]
            hint = did_you_mean(option[1], known)
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}{hint}\n")


def number(least: float, unit: str) -> Callable[[str], float]:
    """Return a type of arguments: a number of at least `least`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= least):
            raise argparse.ArgumentTypeError(f"{text!r} must be {unit}, at least {least:g}")
        return value

    return parse


def whole(least: int) -> Callable[[str], int]:
    """Return a type of arguments: a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least {least}")
        return int(text)

    return parse
