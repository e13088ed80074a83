"""Groups as outboxes and publishers use them: who completes one publishes its message, then closes.

What cannot be published is a dead letter, and keeps no other group waiting; what an outage keeps
back stays claimed and is handed out again, to the same holder at once and to another one later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from .contracts import (
    Broker,
    Claim,
    Completed,
    Group,
    Letter,
    Member,
    Outgoing,
    Record,
    ResultStore,
)
from .errors import PublishError, Unanswered, Unavailable
from .message import new_id
from .outcomes import text_of

__all__ = ["Compose", "Grouping", "Made"]
log = logging.getLogger("fsdf.groups")
SWEEP = 100  # groups that are handed out at a time
TRIES = 5  # claims after which a message that the broker does not answer to is given up

Made: TypeAlias = Outgoing | Record | Letter
# What to send for a completed group; with a reason why that cannot be sent: what to keep instead.
Compose: TypeAlias = Callable[[Completed, str], Sequence[Made]]
_Pair: TypeAlias = tuple[Completed, Sequence[Made]]


class Grouping:
    """The groups of one broker's messages. `add`, `sweep` and `pause` belong to one thread."""

    def __init__(
        self, broker: Broker, store: ResultStore, place: str, lease: float, compose: Compose
    ) -> None:
        """`place` names the broker in every process that uses it."""
        self._broker, self._store, self._groups = broker, store, store.groups()
        self._claim, self._compose = Claim(place, new_id(), lease), compose
        self._next = 0.0  # when to sweep

    def open(self, groups: Sequence[Group]) -> None:
        """Store groups before their members are published. Blocks; any thread; idempotent.

        Raises:
            Unavailable: perhaps they are stored; of empty ones the messages may not have left yet.
        """
        self.finish(self._groups.open(groups, claim := self._of_call()), claim)

    def set_size(self, id: str, size: int) -> None:
        """Tell how many members a group has. Blocks; any thread; raises as `open`."""
        self.finish(self._groups.set_size(id, size, claim := self._of_call()), claim)

    def grow(self, id: str, by: int, key: str) -> bool:
        """As `GroupStore.grow`."""
        return self._groups.grow(id, by, key)

    def _of_call(self) -> Claim:
        """Return a claim that no other thread shares."""
        return self._claim._replace(holder=new_id())

    def add(self, members: Sequence[Member]) -> None:
        """Add members, and publish what they complete. Blocks.

        Raises:
            Unavailable: no member is at fault; the same call may be repeated.
        """
        self.finish(self._groups.add(members, self._claim), self._claim)

    def pause(self) -> float:
        """Return for how many seconds there is nothing to sweep."""
        return max(0.0, self._next - time.monotonic())

    def sweep(self) -> None:
        """Publish what others have completed and not closed, once in a lease. Blocks."""
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + self._claim.lease
        try:
            while done := self._groups.claim(self._claim, SWEEP):
                log.warning("publishing for %d groups that were left completed", len(done))
                self.finish(done, self._claim)
        except Exception as error:  # a loop's edge: what is left is looked for again
            log.warning("cannot look for completed groups, will try again: %r", error)

    def finish(self, completed: Sequence[Completed], claim: Claim) -> None:
        """Send what completed groups ask for, and close them. Blocks; any thread.

        Raises:
            Unavailable: not all are closed; they stay claimed.
        """
        if not completed:
            return
        made = [(each, self._made(each)) for each in completed]
        alone = [pair for pair in made if pair[0].claims > 1]  # something has kept it back before
        alone += self._unsent([pair for pair in made if pair[0].claims == 1])
        left = {each.id for each, effects in alone if not self._is_sent(each, effects)}
        if over := [each.id for each in completed if each.id not in left]:
            self._groups.close(over, claim)
        if left:
            raise Unavailable(f"the messages of {len(left)} completed groups have not left yet")

    def _made(self, done: Completed, refusal: str = "") -> Sequence[Made]:
        try:
            made = self._compose(done, refusal)
            if strange := [each for each in made if type(each) not in (Outgoing, Record, Letter)]:
                raise TypeError(f"it was composed of {text_of(strange, repr)}")
            return made
        except Unavailable:  # what a layer on top asks is down: the group is handed out again
            raise
        except Exception as error:  # of a layer on top
            log.exception("the message of group %s cannot be composed", done.id)
            return [_bare(done, refusal or f"it cannot be composed: {text_of(error, repr)}")]

    def _unsent(self, pairs: Sequence[_Pair]) -> Sequence[_Pair]:
        """Send all at once; return those that were refused."""
        try:
            self._send([each for _, effects in pairs for each in effects])
        except PublishError as error:
            named = {id(each) for each in (*error.rejected, *error.unknown)}
            return [pair for pair in pairs if not named.isdisjoint(map(id, pair[1]))]
        except Unavailable:
            raise
        except Exception:  # one of them cannot be written, so nothing was published
            return pairs
        return ()

    def _send(self, effects: Sequence[Made]) -> None:
        """Store what may be stored twice, then publish."""
        if records := [each for each in effects if type(each) is Record]:
            self._store.write(records)
        if letters := [each for each in effects if type(each) is Letter]:
            self._broker.bury(letters)
            for each in letters:
                log.error("queue %s: message %s is a dead letter: %s",
                          each.queue, each.id, each.reason)  # fmt: skip
        if messages := [each for each in effects if type(each) is Outgoing]:
            self._broker.publish(messages)

    def _is_sent(self, done: Completed, effects: Sequence[Made]) -> bool:
        """Send what one group has made; False to try again. What is refused becomes its letter."""
        ways = effects, None, [_bare(done, "its dead letter was refused")]
        refusal = ""
        for way in ways:
            try:
                self._send(self._made(done, refusal) if way is None else way)
                return True
            except Exception as error:
                if type(error) is Unavailable:
                    raise
                unclear = isinstance(error, Unanswered) or getattr(error, "rejected", True) == ()
                if unclear and done.claims <= TRIES:
                    return False
                refusal = f"the broker refused it: {text_of(error, repr)}"
                log.error("the message of group %s is refused: %r", done.id, error)
        return True


def _bare(done: Completed, reason: str) -> Letter:
    body = done.body
    told = f"the message of group {done.id} did not leave; {reason}"
    return Letter(body.queue, body.id, body.body, told, "", body.headers, body.priority)
