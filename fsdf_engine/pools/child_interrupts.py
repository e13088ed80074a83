"""Exceptions that the parent has raised in a run of its child, by SIGUSR1. The child's side.

The ledger says in which run, and what. It is raised while the code of that run is armed and nowhere
else: between two runs it would leave the ledger's lock held for ever, and while something is said
to the parent it would cut that in two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeAlias, TypeVar

from ..core.signals import on_interrupt
from ..core.telling import stand_in
from ..outcomes import rebuilt
from .ledger import Ledger

__all__ = ["Interrupts"]
T = TypeVar("T")
R = TypeVar("R")
Throw: TypeAlias = Callable[[BaseException], object]


def _raise(error: BaseException) -> NoReturn:
    raise error


class Interrupts:
    """Of the run that this process is at. The main thread's, but for `held`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._main = ledger, threading.get_ident()
        self._number = self._armed = 0  # of the run; it is armed until something was raised in it
        self._held = 0
        self._missed = False  # a signal came when nothing could be raised
        self._throw: Throw = _raise
        on_interrupt(self._arrive)

    def call(self, number: int, run: Callable[[T], R], job: T, throw: Throw = _raise) -> R:
        """Return `run(job)`; meanwhile `throw` raises what the parent wants, once in an attempt."""
        self._throw = throw
        self._number = self._armed = number
        try:
            if self._missed:
                self._arrive()
            return run(job)
        finally:
            self._armed = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raise nothing meanwhile; what was to be raised comes at the end. Any thread."""
        if threading.get_ident() != self._main:  # handlers run in that one only
            yield
            return
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self._missed and not self._held:
                self._arrive()

    def restart(self, delay: float) -> None:
        """Another attempt begins in so many seconds. Call it while `held`."""
        self._ledger.restart(delay)
        self._armed = self._number

    def _arrive(self, *signal: object) -> None:
        """Handle the signal, or one that was missed."""
        self._missed = bool(self._held) or not self._armed
        if not self._missed and self._ledger.interrupted() == self._armed:
            self._armed = 0  # first: nothing is raised while the run unwinds
            module, _, name = self._ledger.wanted().partition(":")
            self._throw(rebuilt(module, name, ()) or stand_in(module, name))
