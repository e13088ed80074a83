"""Gate: messages that somebody has cancelled are answered, not run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..contracts import Job, Mark, Marks
from ..outcomes import Outcome, Revoked

__all__ = ["Cancelled", "cancel"]


def cancel(marks: Marks, ids: Iterable[str], life: float) -> None:
    """Let the gate know of these messages for `life` seconds. Blocks for a round trip, or two."""
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

    def judge(self, batch: Sequence[Job], now: float) -> Sequence[Outcome | None]:
        """See Gate."""
        names = [_name(job.id) if job.plan.gate == self else "" for job in batch]
        asked = list(filter(None, names))
        found = self.marks.read(asked) if asked else ()
        if not found:
            return [None] * len(batch)
        return [Revoked() if name in found else None for name in names]
