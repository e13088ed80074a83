"""The contract of brokers: Broker, Subscription, and what passes between them and the engine.

Instants are Unix seconds and durations are seconds, both float. Brokers move opaque bytes; only the
engine knows what is inside a message. Import from `fsdf_engine.contracts`.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

from .errors import ConfigurationError
from .outcomes import State, Verdict
from .spelling import masked

if TYPE_CHECKING:
    from .transactions import Transactions

__all__ = [
    "Again", "Broker", "Capability", "DeadMessage", "Delivery", "LeaseId", "Letter", "Outgoing",
    "Part", "QueueSize", "Settlement", "Subscription", "line_of", "unchanged",
]  # fmt: skip
LeaseId: TypeAlias = tuple[Any, Any]  # (token of a fetch, place in it); hashable, opaque
Settlement: TypeAlias = tuple[LeaseId, Verdict]
# Of (body, headers): the body, as it is sent once more.
Again: TypeAlias = Callable[[bytes, Mapping[str, str] | None], bytes]


def unchanged(body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Return the body."""
    return body


class Capability(enum.Flag):
    """What a broker does natively; the engine emulates or refuses the rest.

    A class has the most that it can have, an instance what its server grants (`Broker.check`), a
    queue what `Broker.capabilities_of` says. What is said of leases asks nothing of who has none.

    - DELAY: a message may be published and released with a delay. Without it `publish` rejects one
      with a delay; a release with one stays leased to its subscription, as delayed in the `size`
      of its own process, which hands it out again when it is due. When that rests or ends, or is
      lost, it comes back at once.
    - DEAD_LETTER: what is dead is kept. Without it the broker logs it whole, at ERROR, and ends it.
    - PULL: `wait` leases nothing, and an empty `fetch` means that nothing was there. Without it a
      subscription is sent messages from its first fetch on: those in its buffer, or on their way
      there, are leased to it, count as waiting in the `size` of its own process, and go to nobody
      else until `rest`, `close` or the end of its connection. A fetch that finds the buffer empty
      makes one round trip that lets come what is on its way, and may be empty all the same.
    - TIMED: a lease that is not extended ends at a deadline on the server. Without it `lease`
      promises nothing: a message returns when the connection of its holder ends, also by `close`,
      and `extend` is one round trip for each channel that holds leases, to learn which live.
    - COUNTED: `Delivery.deliveries` counts lost leases only. Without it it is an upper bound: what
      was given back may count, too. So it alone never makes a message Lost, or a suspect.
    - BROWSE: dead letters are listed newest first from any offset, which disturbs nobody, and
      replayed by id. Without it only the oldest 1,000 are seen, by one reader at a time, and a
      letter that two bury at the same time may be kept twice.
    - ATOMIC: a release with a state or a delay, a dead letter and a replay are one step. Without
      it a copy is stored, then the message ends: a crash between is a duplicate, never a loss, and
      the copy may be last in line.
    - SIZE_LEASED: the leased part is counted exactly, and can be purged. Without it `size` says -1
      and `purge` leaves it.
    - LISTED: `queues` lists. Without it there are none to list.
    """

    LEASE = (
        enum.auto()
    )  # unsettled deliveries return when their holder dies; a stale settle is void
    DELAY = enum.auto()
    PRIORITY = enum.auto()  # 9..0, then -3, -6, -9: the highest number first
    DEAD_LETTER = enum.auto()
    SIZE = enum.auto()
    DEDUPE = enum.auto()  # publishing one id twice stores one message
    SHARED = enum.auto()  # other processes see the queue
    ORDERED = enum.auto()  # first in, first out within a priority
    GREEN_SAFE = enum.auto()  # its calls yield to gevent's or eventlet's hub by themselves
    PULL = enum.auto()
    TIMED = enum.auto()
    COUNTED = enum.auto()
    BROWSE = enum.auto()
    ATOMIC = enum.auto()
    SIZE_LEASED = enum.auto()
    LISTED = enum.auto()


class Part(enum.Flag):
    """The parts of a queue."""

    WAITING = enum.auto()
    DELAYED = enum.auto()
    LEASED = enum.auto()
    DEAD = enum.auto()


@dataclass(slots=True, eq=False)
class Outgoing:
    """One message on its way to a broker.

    `delay` is relative and made absolute by the server; `not_before` is an instant and used when
    delay is 0; one that has passed is first in line, where the broker can. `priority` is -9..9, 9
    first; what lies below 0 is rounded toward it to a multiple of 3. `ttl` seconds, 0: none. `key`
    orders or partitions.
    """

    queue: str
    id: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] | None = None
    delay: float = 0.0
    not_before: float = 0.0
    priority: int = 0
    ttl: float = 0.0
    key: str | None = None


def line_of(priority: int) -> int:
    """Return the priority of the line in which a message waits: 0..9, -3, -6 or -9.

    What is beyond the lines counts as the outermost of them.
    """
    if priority >= 0:
        return priority if priority < 10 else 9
    return max(-9, -(-priority // 3) * 3)


@dataclass(slots=True, eq=False)
class Letter:
    """A dead letter to be kept of a message that nobody leases: it was acknowledged early.

    `id` is the message's own name; where another letter of the queue has it, it gets another one.
    """

    queue: str
    id: str
    body: bytes = field(repr=False)
    reason: str
    trace: str = field(default="", repr=False)
    headers: Mapping[str, str] | None = None
    priority: int = 0


@dataclass(slots=True, eq=False, repr=False)
class Delivery:
    """One leased message; it stays ours until it is settled or the lease ends.

    `id` is the broker's own name of the message, the same over redeliveries: it becomes the task id
    of a bare body. `deliveries` counts the leases lost before this one, where COUNTED nothing else:
    the poison limit. `state` is what the last Release carried. `published_at` is 0.0 where unknown.
    `priority` is the one it was published with, as far as the broker knows lines.
    """

    lease: LeaseId
    body: bytes
    id: str = ""
    deliveries: int = 0
    state: State | None = None
    headers: Mapping[str, str] | None = None
    published_at: float = 0.0
    priority: int = 0


class QueueSize(NamedTuple):
    """How many messages are in each part of a queue, exactly; -1 where the broker cannot tell."""

    waiting: int
    delayed: int
    leased: int
    dead: int


class DeadMessage(NamedTuple):
    """A dead letter; `id` names it for `replay` and is unique within the queue."""

    id: str
    body: bytes
    reason: str
    trace: str
    died_at: float


class Subscription(ABC):
    """The receiving half of one queue.

    `wait`, `fetch` and `fetch_next` belong to one thread; `settle` and `extend` may be called from
    others, also at the same time as each other; `wake` from any.

    `emptied` may say that the last fetch has left nothing that is due: `wait` can follow it.
    `unsigned` may say that there was none of the marks `SIGNS` beside the broker when the last
    messages were leased: then gates look for no others. It is reset by who has heard it.
    """

    emptied = unsigned = False

    @abstractmethod
    def wait(self, timeout: float) -> None:
        """Block until fetch may find something, wake() is called or `timeout` has passed.

        Leases nothing and never polls. Called only after a fetch that came back empty or has
        `emptied` the queue; returns at once when something became available since. Wakes by itself
        for a delayed message that becomes due and for a lease that ends by time.

        Raises:
            Unavailable: the connection is gone; the caller repeats it later.
        """

    @abstractmethod
    def fetch(self, limit: int, max_bytes: int) -> Sequence[Delivery]:
        """Lease up to `limit` messages (and about `max_bytes`) in one round trip; never blocks.

        May return fewer than there are; returns none only if nothing was available.

        Raises:
            Unavailable: the connection is gone; the caller repeats it.
        """

    def fetch_next(self, limit: int, max_bytes: int, timeout: float) -> Sequence[Delivery] | None:
        """Wait; where the broker can, lease what comes in the same round trip. Blocks.

        Called as `wait` is, while up to `limit` may be leased. None: nothing was leased, and fetch
        may find something; so always where this only waits. After wake() nothing should be leased
        any more; what was is returned. A broker without LEASE only waits: what is on its way to us
        would be in no part of the queue.

        Raises:
            Unavailable: the connection is gone; the caller repeats it later. The next fetch gives
                back what may have been leased.
        """
        self.wait(timeout)
        return None

    def rest(self) -> None:
        """Know that no fetch comes for a while: give back what fetch has not handed out.

        Called by the thread of `fetch`, or by another one once that has ended, when its consumer
        pauses, quits or may not lease anything for longer than a moment; the next fetch or wait
        ends it. Blocks for a round trip at most. Nothing to do where PULL.

        Raises:
            Unavailable: the connection is gone, and with it what was to be given back.
        """

    @abstractmethod
    def wake(self) -> None:
        """End the current wait, or the next one if none is under way. Any thread."""

    @abstractmethod
    def settle(self, batch: Sequence[Settlement]) -> Collection[LeaseId]:
        """End leases in one round trip; return those that were no longer ours (unchanged there).

        A repeat after an unknown outcome may name leases as lost that the first call settled.

        Raises:
            Unavailable: perhaps nothing was settled; the same call may be repeated.
        """

    @abstractmethod
    def extend(self, leases: Sequence[LeaseId]) -> Collection[LeaseId]:
        """Move the end of each lease to a full lease from now; return those still ours.

        Of a lease that we have settled ourselves the answer is either. Without TIMED it moves
        nothing and only asks.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the connections. Leases that fetch handed out end by settle or by time, not here.

        Without TIMED they end here. Idempotent; called when no other method is running.
        """


class Broker(ABC):
    """A place where messages wait. One file per broker; all methods may be called by any thread.

    The constructor takes the server's URL (or path) and opens nothing; the first call connects.
    After a fork a child's first call must open connections of its own.

    What another program has written into a queue, and no `publish` of ours would, is delivered all
    the same: its body as the bytes that are there, and all that cannot be read beside it as if it
    were not there. So the engine runs it, or makes it a dead letter with the reason; it never keeps
    another message from being fetched, counted, listed or replayed.
    """

    capabilities: Capability  # of the class: the most; of the instance: may shrink in `check`
    setting: ClassVar[str] = ""  # the configuration key that gives the URL
    transactions: Transactions | None = None  # how messages become part of others'; None: never
    hints: ClassVar[Mapping[Capability, str]] = {}  # how to have what a queue lacks, for errors

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def address(self) -> str:
        """Where messages wait, fit to be shown: a URL without its passwords, or a whole path."""
        return masked(self.url)

    @classmethod
    def valid_queue(cls, name: str) -> None:
        """Refuse a name that cannot be a queue of its own here.

        Raises:
            ConfigurationError: it is no text, or the broker keeps the state of another queue there.
        """
        try:
            good = bool(name.encode())
        except (AttributeError, UnicodeEncodeError):
            good = False
        if not good:
            raise ConfigurationError(f"the queue's name {name!r} must be text and not empty")

    @abstractmethod
    def publish(self, batch: Sequence[Outgoing]) -> None:
        """Store every message before returning; one round trip per batch.

        Raises:
            PublishError: naming those not stored and those of which it is unknown.
            Unavailable: nothing was sent.
            ServerRefused: the server rejects us: a wrong password, or it is too old.
        """

    @abstractmethod
    def subscribe(self, queue: str, *, lease: float) -> Subscription:
        """Return a subscription whose leases last `lease` seconds. Opens nothing yet."""

    @abstractmethod
    def size(self, queue: str) -> QueueSize:
        """Count the messages of a queue, exactly."""

    @abstractmethod
    def queues(self) -> Sequence[str]:
        """Return the names of the queues that hold anything in any part, sorted.

        For people: it may have to look through all that the server keeps. A queue whose messages
        change their parts meanwhile may be missing. Empty without LISTED.
        """

    @abstractmethod
    def purge(self, queue: str, parts: Part = Part.WAITING | Part.DELAYED) -> int:
        """Delete the messages of these parts, atomically; return how many.

        Purging LEASED makes every owner lose its leases, where SIZE_LEASED.
        """

    @abstractmethod
    def dead_letters(self, queue: str, limit: int = 100, offset: int = 0) -> Sequence[DeadMessage]:
        """Return dead letters, the newest first; without BROWSE of the oldest 1,000 only."""

    def delayed(self, queue: str, limit: int = 100) -> Sequence[Outgoing]:
        """Return messages that wait for their time, as they would be sent now, the next one first.

        `not_before` is when each is due. () where the broker does not list them. O(limit log n).
        """
        return ()

    @abstractmethod
    def bury(self, batch: Sequence[Letter]) -> None:
        """Keep dead letters of messages that nobody leases; one round trip per batch.

        Letters of one queue with the same id and body are one: what is there is not kept again.

        Raises:
            Unavailable: perhaps some were kept; the same call may be repeated.
            ServerRefused: as for publish.
        """

    @abstractmethod
    def replay(
        self, queue: str, ids: Collection[str] | None = None, again: Again = unchanged
    ) -> int:
        """Put dead letters (all, without ids) back in line as new messages; return how many.

        `again` gives each one's new body: the engine counts its sends there. It is called with the
        headers, if the broker has carried some. What has no id of its own gets another one.
        """

    def capabilities_of(self, queue: str) -> Capability:
        """Return what can be done with one queue: part of what the broker can. May block.

        As of now: another program may have declared it in its own way, or rights may lack.

        Raises:
            ServerRefused: as for publish.
            Unavailable: the server does not answer.
        """
        return self.capabilities

    def check(self) -> None:
        """Connect once, to learn early what is wrong, and which capabilities the server grants.

        Raises:
            ServerRefused: as for publish.
            Unavailable: the server does not answer.
        """

    def close(self) -> None:
        """Free every connection. Idempotent."""
