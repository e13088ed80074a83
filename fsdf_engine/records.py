"""The contract of results: Record, Layout, Inbox, ResultStore.

What exists once per message (Record) is a plain slots class. Import from `fsdf_engine.contracts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import ClassVar, Protocol

from .errors import ArgumentError, ConfigurationError
from .groups import GroupStore
from .marks import Mark, Marks
from .messaging import Delivery, LeaseId, Outgoing, Subscription

__all__ = ["Follow", "Inbox", "Layout", "Record", "ResultStore", "Together"]


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """An effect: what a result store keeps of one task id.

    `body` is a JSON object, opaque to the store, which keeps it for `expires` seconds; infinite:
    for ever. (`sends`, `deliveries`, `attempt`) fences stale writers, in this order: how often the
    message was published anew, how often its lease was lost since, and which attempt it is; -1 says
    that this is not known, and gives way to an end that is told by who knows. A `final` record
    replaces one that is not, never the other way round. `origin`, a few letters and digits, tells a
    message from another one that claims its id, "" where that is not known. `reply` is the inbox
    address of a waiting publisher, or "". `layout` names the `Layout` in which it is kept.
    """

    id: str
    body: bytes
    deliveries: int = 0
    final: bool = True
    expires: float = 86400.0
    reply: str = ""
    sends: int = 0
    origin: str = ""
    attempt: int = 0
    layout: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where records lie, and how they are told of, for readers of another program.

    Under the key `prefix` + id, which is also the name of a channel, lie the very bytes of a
    record's body. Each record that is stored, also one that is not final, is published there, as
    these bytes; a final one besides to its own `reply`. It is fenced as any other, by what is kept
    beside it. What another program has stored there is read, too, and not fenced; `ended` says of
    bytes whether they are an end, and is called by the inbox's thread as well.
    """

    name: str
    prefix: str
    ended: Callable[[bytes], bool]


class Follow(Protocol):
    """Takes the message that is published while its caller waits for nothing else."""

    def foresee(self, delivery: Delivery, /) -> Mark | None:
        """Return the mark with which it is to be acknowledged at once; None: it is to be leased.

        Asked before it is published.
        """

    def take(self, *, acknowledged: bool) -> None:
        """It is leased for the caller, or acknowledged with the mark that was foreseen."""


class Together(Protocol):
    """Takes several steps in one round trip, see `ResultStore.together`."""

    def __call__(
        self,
        publishes: Sequence[Outgoing],
        records: Sequence[Record],
        leases: Sequence[LeaseId],
        marks: Sequence[Mark] = (),
        *,
        follow: Follow | None = None,
    ) -> tuple[int, Collection[LeaseId]]:
        """Return how many of the three steps are done, and which leases were no longer ours."""


class Inbox(ABC):
    """Where one process learns of results, without polling."""

    address: str  # travels in messages as `extra.reply`; nobody can guess it

    @abstractmethod
    def watch(self, ids: Sequence[str]) -> None:
        """Deliver the results of these ids too, whoever pushed them; at once if already stored."""

    def doubt(self) -> None:
        """Look after the connection: a result was found of which nothing has been heard."""

    def attend(self, done: Lock, found: Sequence[bytes], timeout: float) -> bool:
        """Acquire `done`, which is released once `found` holds something; False after `timeout`.

        The caller is the only one who waits, so it may do in its own thread what the inbox does in
        another. `resume` says that there are more. Blocks.
        """
        return done.acquire(timeout=timeout)

    def resume(self) -> None:
        """Deliver without the help of those who wait. Any thread."""

    @abstractmethod
    def close(self) -> None:
        """Stop its thread and free its connection. Idempotent."""


class ResultStore(ABC):
    """Keeps what became of messages, by task id. Any thread may call any method."""

    setting: ClassVar[str] = ""
    shared: ClassVar[bool] = True  # other processes see what is stored

    def __init__(self, url: str) -> None:
        self.url = url
        self.layouts: dict[str, Layout] = {}

    def add_layout(self, layout: Layout) -> None:
        """Let records and readers name a layout. Idempotent.

        Raises:
            ConfigurationError: the store cannot keep results so; or the name is another one's.
        """
        if not layout.prefix or self.layouts.setdefault(layout.name, layout) != layout:
            raise ConfigurationError(
                f"the result layout {layout.name!r} is there already, or has no prefix of its own"
            )

    def key_of(self, id: str, layout: str) -> str:
        """Return what tells the results of all layouts apart; the engine's own have their ids.

        Raises:
            ArgumentError: there is no such layout.
        """
        if not layout:
            return id
        if layout not in self.layouts:
            raise ArgumentError(f"unknown result layout {layout!r}; `add_layout` makes it known")
        return self.layouts[layout].prefix + id

    @abstractmethod
    def write(self, records: Sequence[Record]) -> None:
        """Store all in one round trip, then notify waiters; idempotent by id.

        A record changes nothing where the stored one has a greater (`sends`, `deliveries`), or the
        same and a greater `attempt`: an end, though, replaces all progress of its own delivery, for
        who ends a run from outside may not know its attempt. Nor does it where the stored one is
        final and of another `origin`; in that case its own `reply` is told all the same. A `reply`
        that is no address of an inbox of this kind is ignored: it comes from a message.

        Raises:
            Unavailable: no record is at fault; the same call may be repeated.
        """

    @abstractmethod
    def read(
        self, ids: Sequence[str], *, final: bool = False, layout: str = ""
    ) -> Mapping[str, bytes]:
        """Return the bodies of those that are stored and not expired; `final`: of ends only."""

    @abstractmethod
    def forget(self, ids: Sequence[str], *, layout: str = "") -> int:
        """Delete; return how many there were."""

    @abstractmethod
    def inbox(
        self,
        deliver: Callable[[str, bytes], None],
        pending: Callable[[], Sequence[str]],
        *,
        layout: str = "",
    ) -> Inbox:
        """Open this process's inbox for the results of one layout: one thread, one connection.

        `deliver(id, body)` is called from its thread for every final record, perhaps twice.
        After a gap in the connection the inbox reads what `pending()` names and delivers it.
        """

    def together(self, subscription: Subscription) -> Together | None:
        """Return what takes the steps of a small flush in one round trip; None: nothing can.

        It is called with messages to publish to the broker of this subscription, records to write
        and leases to acknowledge, and does one after the other. Marks are put with the records, if
        they are absent. It returns how many of these three steps are done, and the leases that were
        no longer ours; what is not done is left to who asked, for whatever reason: 0 where it takes
        no such messages or records. Opens nothing yet. With `follow` it may, once all is done,
        lease what it was to publish, if a fetch would bring just that, and tell `follow`, which may
        have foreseen that it be acknowledged; the thread of `fetch` is in `fetch_next` then, or
        does not fetch.

        Raises:
            PublishError: of all of them it is unknown whether they are published, and what follows.
            Unavailable: nothing was sent; or, where there was nothing to publish, unknown.
        """
        return None

    def close(self) -> None:
        """Free every connection. Idempotent."""

    @abstractmethod
    def marks(self) -> Marks:
        """Return where marks are kept; always the same object."""

    def groups(self) -> GroupStore:
        """Return where groups are kept; always the same object.

        Raises:
            ConfigurationError: this store keeps none.
        """
        raise ConfigurationError(f"{type(self).__name__} keeps no groups; use a store that does")
