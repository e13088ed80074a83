"""The contract of marks: small values with a life, beside the results of a store.

Import from `fsdf_engine.contracts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["SIGNS", "Mark", "Marks"]
# Marks that say, while they are there, that there may be others beside them that a gate looks for.
SIGNS = "cancelled:some", "cancelled:long"


@dataclass(slots=True, eq=False)
class Mark:
    """Says something under a name, for `life` seconds from now.

    A `watched` one stays after that, until it is deleted: it tells that who put it has neither
    renewed nor deleted it, and `Marks.lapsed` hands it to somebody else.
    """

    name: str
    value: bytes = field(default=b"", repr=False)
    life: float = 86400.0
    watched: bool = False


class Marks(ABC):
    """What every result store keeps, too: one round trip each, any thread, in groups.

    What has expired is gone for every method, and costs nothing. All raise Unavailable, upon which
    the same call may be repeated.
    """

    @abstractmethod
    def put(self, marks: Sequence[Mark]) -> Collection[str]:
        """Put those whose names are absent; return their names. O(marks).

        Of a name that is there nothing changes. Who repeats a call whose answer did not come may
        be told that a name was there which is its own.
        """

    @abstractmethod
    def read(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values of those that are there. O(names)."""

    @abstractmethod
    def delete(self, names: Sequence[str]) -> int:
        """Delete; return how many there were. O(names)."""

    def delete_soon(self, names: Sequence[str]) -> None:
        """Delete, perhaps with what is sent next, at the latest with the next `delete`."""
        self.delete(names)

    @abstractmethod
    def renew(self, names: Sequence[str], life: float) -> Collection[str]:
        """Let each live for `life` seconds from now; return those that are there. O(names).

        A watched one is renewed also when its life had ended, and even when it was handed out.
        """

    @abstractmethod
    def lapsed(self, life: float, prefix: str = "") -> Sequence[Mark]:
        """Take charge of watched marks whose life has ended, for `life` seconds; up to 100.

        Each is handed to one caller at a time, and to the next one when `life` is over and nobody
        has deleted it. `prefix` is what their names begin with. O(lapsed); without any, O(log n).
        """
