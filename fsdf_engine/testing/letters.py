"""The part of the suite of brokers that is about dead letters."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from ..contracts import Broker, Capability, Letter, Outgoing, Part
from ..outcomes import DeadLetter
from .deliveries import (
    BOUND,
    MB,
    QUEUE,
    Open,
    bodies,
    collect,
    counts,
    fetch_some,
    has,
    needs,
    outgoing,
    sized,
)  # fmt: skip

__all__ = ["LettersConformance"]


class LettersConformance:
    """Derived from by `BrokerConformance`."""

    def test_dead_letters_are_kept_listed_replayed_and_purged(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.DEAD_LETTER)
        sub = open()
        broker.publish([outgoing(n) for n in range(3)])
        verdict = DeadLetter("bad\nluck: ж", 'Traceback\n  File "x"\n')
        before = time.time()
        for d in collect(broker, sub, 3):
            sub.settle([(d.lease, verdict)])
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, 3)
        letters = broker.dead_letters(QUEUE)
        assert {x.body for x in letters} == {outgoing(n).body for n in range(3)}
        assert len({x.id for x in letters}) == 3
        assert (letters[0].reason, letters[0].trace) == (verdict.reason, verdict.trace)
        assert before - 5 < letters[0].died_at < time.time() + 5
        assert len(broker.dead_letters(QUEUE, limit=1)) == 1
        assert broker.dead_letters(QUEUE, limit=9, offset=1) == letters[1:]
        assert broker.replay(QUEUE, [letters[0].id, "no such id"]) == 1
        [d] = fetch_some(sub)
        assert (d.body, d.state) == (letters[0].body, None)
        assert counts(broker, d, 0)
        assert broker.purge(QUEUE, Part.DEAD) == 2
        assert broker.size(QUEUE) == sized(broker, 0, 0, 1, 0)
        sub.settle([(d.lease, verdict)])
        assert broker.replay(QUEUE, again=lambda body, headers: b"again " + body) == 1
        assert broker.size(QUEUE) == sized(broker, 1, 0, 0, 0)
        assert [x.body for x in collect(broker, sub, 1)] == [b"again " + letters[0].body]

    def test_replay_tells_the_headers_that_the_broker_has_carried(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.DEAD_LETTER)
        sub, told = open(), []

        def again(body: bytes, headers: Mapping[str, str] | None) -> bytes:
            told.append(headers)
            return body

        broker.publish([Outgoing(QUEUE, "a", b"{}", {"form": "of another"})])
        [d] = fetch_some(sub)
        sub.settle([(d.lease, DeadLetter("bad"))])
        assert broker.replay(QUEUE, again=again) == 1
        assert [d.headers] == told
        [d] = fetch_some(sub)
        assert [d.headers] == told

    def test_replay_wakes_a_waiting_consumer(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.DEAD_LETTER)
        sub = open()
        broker.publish([outgoing(1)])
        sub.settle([(d.lease, DeadLetter("bad")) for d in fetch_some(sub)])
        assert not sub.fetch(1, MB)
        waiter = threading.Thread(target=sub.wait, args=(BOUND,))
        waiter.start()
        broker.replay(QUEUE)
        waiter.join(BOUND / 2)
        assert not waiter.is_alive()

    def test_buried_letters_are_as_those_of_leased_messages(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.DEAD_LETTER)
        sub = open()
        broker.publish([outgoing(0)])
        sub.settle([(d.lease, DeadLetter("leased")) for d in fetch_some(sub)])
        letters = [letter(1), Letter(QUEUE, "b", b"\xff\x00\n:", "bad\nluck: ж", "Trace\n  1\n")]
        before = time.time()
        broker.bury([*letters, letter(2, QUEUE + ".other")])
        assert broker.size(QUEUE) == sized(broker, 0, 0, 0, 3)
        assert broker.purge(QUEUE + ".other", Part.DEAD) == 1
        found = {x.body: x for x in broker.dead_letters(QUEUE)}
        told = found[letters[1].body]
        assert (told.reason, told.trace) == ("bad\nluck: ж", "Trace\n  1\n")
        assert before - 5 < told.died_at < time.time() + 5
        assert len({x.id for x in found.values()}) == 3
        assert broker.replay(QUEUE, [told.id], lambda body, headers: body + b"again") == 1
        [d] = fetch_some(sub)
        assert (d.body, d.state) == (told.body + b"again", None)
        assert counts(broker, d, 0)
        assert broker.purge(QUEUE, Part.DEAD) == 2

    def test_letter_that_is_buried_again_is_kept_once(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.DEAD_LETTER)
        sub = open()
        broker.bury([letter(1), letter(2)])
        broker.bury([letter(2), letter(1), letter(3), letter(3)])
        assert broker.size(QUEUE).dead == 3
        assert {x.body for x in broker.dead_letters(QUEUE)} == {letter(n).body for n in (1, 2, 3)}
        assert broker.replay(QUEUE) == 3
        broker.bury([letter(1)])
        assert broker.size(QUEUE) == sized(broker, 3, 0, 0, 1)
        collect(broker, sub, 3)

    def test_letters_that_are_buried_at_the_same_time_are_kept_once(self, broker: Broker) -> None:
        needs(broker, Capability.DEAD_LETTER | Capability.BROWSE)
        together, rounds = threading.Barrier(4), 10

        def bury() -> None:
            for first in range(0, 3 * rounds, 3):
                together.wait(BOUND)
                broker.bury([letter(n) for n in range(first, first + 3)])

        threads = [threading.Thread(target=bury) for _ in range(together.parties)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert broker.size(QUEUE).dead == 3 * rounds

    def test_letters_of_one_id_with_other_bodies_are_all_kept(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.DEAD_LETTER)
        several = [Letter(QUEUE, "same", b"%d" % n, f"{n}") for n in range(3)]
        broker.bury(several[:2])
        broker.bury(several)
        letters = broker.dead_letters(QUEUE)
        assert {(x.body, x.reason) for x in letters} == {(b"%d" % n, f"{n}") for n in range(3)}
        assert len({x.id for x in letters}) == 3
        for x in letters:
            assert broker.replay(QUEUE, [x.id]) == 1
        assert sorted(bodies(collect(broker, open(), 3))) == [b"0", b"1", b"2"]

    def test_letters_may_have_any_id_and_come_in_numbers(self, broker: Broker, open: Open) -> None:
        needs(broker, Capability.DEAD_LETTER)
        odd = ["", "a b", "order:17", "x:0:9:", "~1", "ключ\n", "\udcff", "{q}", "1"]
        broker.bury([Letter(QUEUE, id, b"%d" % n, "odd") for n, id in enumerate(odd)])
        broker.bury([letter(n) for n in range(1000, 1500)])
        assert broker.size(QUEUE).dead == len(odd) + 500
        assert broker.replay(QUEUE) == len(odd) + 500
        found = set(bodies(collect(broker, open(), len(odd) + 500)))
        assert found == {
            *(b"%d" % n for n in range(len(odd))),
            *(letter(n).body for n in range(1000, 1500)),
        }

    def test_all_of_very_many_letters_can_be_looked_through_or_the_oldest(
        self, broker: Broker, open: Open
    ) -> None:
        needs(broker, Capability.DEAD_LETTER)
        for first in range(0, 1200, 100):
            broker.bury([letter(n) for n in range(first, first + 100)])
        pages = [broker.dead_letters(QUEUE, 500, offset) for offset in (0, 500, 1000, 1500)]
        found = [int(x.body[5:-1]) for page in pages for x in page]
        seen = 1200 if has(broker, Capability.BROWSE) else 1000
        assert sorted(found) == list(range(seen))
        assert [n // 100 for n in found] == sorted((n // 100 for n in found), reverse=True)
        newest = pages[0][0]
        assert broker.replay(QUEUE, [newest.id, pages[1][0].id, "no such id"]) == 2
        assert newest.body in bodies(collect(broker, open(), 2))
        assert broker.size(QUEUE).dead == 1198
        assert newest.id not in {x.id for x in broker.dead_letters(QUEUE, 1200)}
        assert broker.replay(QUEUE) == 1198


def letter(n: int, queue: str = QUEUE) -> Letter:
    """Return a letter whose message has the body `{"n": n}`."""
    return Letter(queue, f"letter{n}", b'{"n":%d}' % n, "buried")
