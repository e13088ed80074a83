"""The contract of wire forms: how a message is read, and written again. Pure.

A consumer has several codecs, in order, and asks each about a message until one knows it. Import
from `fsdf_engine.contracts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from .execution import Job
    from .messaging import Outgoing

__all__ = ["Arguments", "Codec", "Envelope"]

Envelope: TypeAlias = tuple[dict[str, Any], Any]  # (control data, what the codec keeps)
Arguments: TypeAlias = tuple[Sequence[Any], Mapping[str, Any]]


class Codec(ABC):
    """One wire form, read in two phases: what everybody needs, and what the code needs.

    The envelope is read in the consumer's thread, for every message, and again before each further
    attempt and in the child process of a pool: it is cheap, runs no user code, unpickles nothing.
    All that is not a success can be told of a message by its envelope alone.
    """

    @abstractmethod
    def envelope(self, body: bytes, headers: Mapping[str, str] | None) -> Envelope | None:
        """Return (control data, anything to keep) of a message; None: not of this form.

        The control data is in the words of `fsdf_engine.message`, whatever the form calls it:
        `task_id`, `publish_time`, `task`, `headers`, `reply`, `expires`, `attempt`, `crashes`,
        `pushes`, `sends`, `limits`; what a message does not say is absent.

        Raises:
            ValueError: of this form, and unreadable: the reason of a dead letter.
        """

    @abstractmethod
    def arguments(self, job: Job) -> Arguments:
        """Return what to call the task's function with. Called where the code runs.

        `job.kept` is what the envelope kept, and now the codec's to change; `job.extra` is the
        control data. Whatever it raises, and however long it takes, it is this run's matter.
        """

    @abstractmethod
    def again(self, job: Job, changes: Mapping[str, Any]) -> Outgoing:
        """Return the message of a job as it is sent anew, in this form; the job need not have run.

        Everything stays but for `changes`. In them are always `task_id`, `sends`, `attempt`,
        `crashes` (whole numbers) and `pushes` (a list or None), to be found by `envelope` again; a
        retry's own changes stand beside them. The priority is the delivery's. The engine sets `id`
        and `delay` of what is returned.

        Raises:
            Exception: it cannot be written, or a change is not known; the message is a dead letter.
        """

    @abstractmethod
    def replayed(self, body: bytes) -> bytes:
        """Return a dead letter's body as it is sent once more: a life more, its attempts anew.

        That is `sends` + 1, without `attempt`, `crashes` and `pushes`. Asked of what `envelope`
        knows; the headers stay.
        """
