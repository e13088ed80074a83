"""Gate: messages that somebody has cancelled are answered, not run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..contracts import SIGNS, Job, Mark, Marks
from ..outcomes import Outcome, Revoked

__all__ = ["Cancelled", "cancel"]
SHORT, LONG = 2 * 86400.0, 3650 * 86400.0  # seconds that the signs last
SIGN, LONG_SIGN = SIGNS  # that something is cancelled, for up to `SHORT` seconds, and for longer


def cancel(marks: Marks, ids: Iterable[str], life: float) -> None:
    """Let the gate know of these messages for `life` seconds. Blocks for a few round trips."""
    sign, lasts = (SIGN, SHORT) if life <= SHORT else (LONG_SIGN, LONG)
    # before the others: who finds neither sign looks for no other mark
    while not (marks.put([Mark(sign, b"", lasts)]) or marks.renew([sign], lasts)):
        pass  # it has ended between the two
    names = {_name(id) for id in ids}
    put = marks.put([Mark(name, b"", life) for name in names])
    if again := names.difference(put):
        marks.renew(list(again), life)


def _name(id: str) -> str:
    """Return the mark of a message, whose id may be anything that another program has written."""
    return f"cancel:{id if id.isascii() else id.encode(errors='backslashreplace').decode()}"


class Cancelled(NamedTuple):
    """Looks for marks in one store, once per batch, for the tasks whose plans have this gate."""

    marks: Marks

    @property
    def signs(self) -> Sequence[str]:
        """Without any of these marks there is nothing to look for."""
        return SIGNS

    def judge(self, batch: Sequence[Job], now: float) -> Sequence[Outcome | None]:
        """See Gate."""
        names = [_name(job.id) if job.plan.gate == self else "" for job in batch]
        asked = list(filter(None, names))
        found = self.marks.read(asked) if asked else ()
        if not found:
            return [None] * len(batch)
        return [Revoked() if name in found else None for name in names]
