"""One conformance suite for every result store: subclass it, give a `store` fixture.

class TestMine(StoreConformance):
    @pytest.fixture
    def store(self):
        return MyStore("mine://127.0.0.1")
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from ..contracts import Inbox, Record, ResultStore

__all__ = ["BOUND", "Received", "StoreConformance"]

BOUND = 20.0  # seconds; only a failing test reaches it
Open = Callable[..., tuple[Inbox, "Received"]]


class Received:
    """What an inbox delivered."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self._changed = threading.Condition()

    def __call__(self, id: str, body: bytes) -> None:
        with self._changed:
            self.bodies[id] = body
            self._changed.notify_all()

    def wait_for(self, *ids: str) -> dict[str, bytes]:
        """Block until all of these are there; return everything that came."""
        with self._changed:
            if not self._changed.wait_for(lambda: set(ids) <= set(self.bodies), BOUND):
                raise AssertionError(f"not delivered: {sorted(set(ids) - set(self.bodies))[:5]}")
            return dict(self.bodies)


def nothing() -> Sequence[str]:
    """Wait for no result in particular."""
    return ()


def connected(store: ResultStore, inbox: Inbox, received: Received) -> None:
    """Block until the inbox receives; what came before, only `pending` would tell it."""
    store.write([Record("probe", b"")])
    inbox.watch(["probe"])
    received.wait_for("probe")
    store.forget(["probe"])
    del received.bodies["probe"]


class StoreConformance:
    """Every test must pass unchanged. The store is empty when a test starts."""

    @pytest.fixture
    def open(self, store: ResultStore) -> Iterator[Open]:
        opened: list[Inbox] = []

        def inbox(pending: Callable[[], Sequence[str]] = nothing) -> tuple[Inbox, Received]:
            received = Received()
            opened.append(store.inbox(received, pending))
            connected(store, opened[-1], received)
            return opened[-1], received

        yield inbox
        for one in opened:
            one.close()
        store.close()

    def test_what_is_written_is_read_unchanged(self, store: ResultStore) -> None:
        body = '{"s":"ж漢字🎉\\n"}'.encode() + b"\r\n\x00" + b"x" * (1 << 20)
        store.write([Record("a", body), Record("b", b"", final=False), Record("c", b"7F8P")])
        assert dict(store.read(["a", "b", "c", "d"])) == {"a": body, "b": b"", "c": b"7F8P"}
        assert dict(store.read([])) == {}

    def test_writing_nothing_is_allowed(self, store: ResultStore) -> None:
        store.write([])

    def test_a_repeated_write_changes_nothing(self, store: ResultStore) -> None:
        for _ in range(2):
            store.write([Record("a", b"1"), Record("b", b"2")])
        assert dict(store.read(["a", "b"])) == {"a": b"1", "b": b"2"}

    def test_the_last_of_equal_records_in_a_batch_stays(self, store: ResultStore) -> None:
        store.write([Record("a", b"started", final=False), Record("a", b"done")])
        assert dict(store.read(["a"])) == {"a": b"done"}

    def test_an_older_delivery_changes_nothing(self, store: ResultStore) -> None:
        store.write([Record("a", b"new", deliveries=10)])
        store.write([Record("a", b"old", deliveries=9), Record("a", b"oldest", deliveries=0)])
        assert dict(store.read(["a"])) == {"a": b"new"}
        store.write([Record("a", b"newer", deliveries=11)])
        assert dict(store.read(["a"])) == {"a": b"newer"}

    def test_a_replayed_message_replaces_what_its_earlier_life_left(
        self, store: ResultStore, open: Open
    ) -> None:
        inbox, got = open()
        store.write([Record("a", b"lost", deliveries=6)])
        store.write([Record("a", b"late", deliveries=7)])
        store.write([Record("a", b"right", sends=1, reply=inbox.address)])
        store.write([Record("a", b"of the life before", deliveries=9)])
        assert dict(store.read(["a"])) == got.wait_for("a") == {"a": b"right"}
        store.write([Record("a", b"and again", sends=12, deliveries=1)])
        store.write([Record("a", b"stale", sends=2, deliveries=5), Record("a", b"p", 99, False)])
        assert dict(store.read(["a"])) == {"a": b"and again"}

    def test_the_end_of_another_message_is_not_replaced(
        self, store: ResultStore, open: Open
    ) -> None:
        (mine, got), (his, told) = open(), open()
        store.write([Record("a", b"mine", origin="me", reply=mine.address)])
        assert got.wait_for("a") == {"a": b"mine"}
        mine.watch(["b"])
        store.write([Record("a", b"forged", 99, sends=99, origin="him", reply=his.address)])
        store.write([Record("a", b"forged", 99), Record("a", b"p", final=False, origin="him")])
        assert dict(store.read(["a"])) == {"a": b"mine"}
        assert told.wait_for("a") == {"a": b"forged"}  # who sent it learns how it ended
        store.write([Record("a", b"mine, again", origin="me", deliveries=1)])
        assert dict(store.read(["a"])) == {"a": b"mine, again"}
        store.write([Record("b", b"", reply=mine.address)])
        assert got.wait_for("b") == {"a": b"mine", "b": b""}

    def test_progress_of_another_message_keeps_no_end_out(self, store: ResultStore) -> None:
        forged = Record("a", b"retry", final=False, sends=1 << 30, origin="him")
        store.write([forged, Record("a", b"mine", origin="me"), forged])
        assert dict(store.read(["a"])) == {"a": b"mine"}

    def test_ends_are_read_apart_from_what_goes_on(self, store: ResultStore) -> None:
        store.write([Record("a", b"retry", final=False, origin="o"), Record("b", b"F", sends=3)])
        store.write([Record("c", b"end", deliveries=7), Record("d", b"p", final=False)])
        assert dict(store.read(["a", "b", "c", "d"], final=True)) == {"b": b"F", "c": b"end"}
        assert set(store.read(["a", "b", "c", "d"])) == {"a", "b", "c", "d"}

    def test_an_older_delivery_does_not_replace_progress(self, store: ResultStore) -> None:
        store.write([Record("a", b"running", deliveries=1, final=False)])
        store.write([Record("a", b"stale end", deliveries=0)])
        assert dict(store.read(["a"])) == {"a": b"running"}

    def test_progress_never_replaces_an_end(self, store: ResultStore) -> None:
        store.write([Record("a", b"started", final=False)])
        store.write([Record("a", b"half", final=False)])
        assert dict(store.read(["a"])) == {"a": b"half"}
        store.write([Record("a", b"done")])
        store.write([Record("a", b"started again", deliveries=3, final=False)])
        assert dict(store.read(["a"])) == {"a": b"done"}

    def test_forgotten_results_are_gone_and_counted(self, store: ResultStore) -> None:
        store.write([Record("a", b"1", deliveries=5), Record("b", b"2")])
        assert store.forget(["a", "b", "c"]) == 2
        assert dict(store.read(["a", "b"])) == {}
        store.write([Record("a", b"3")])
        assert dict(store.read(["a"])) == {"a": b"3"}

    def test_expired_results_are_gone(self, store: ResultStore) -> None:
        store.write([Record("a", b"1", deliveries=5, expires=0.02), Record("b", b"2")])
        end = threading.Event()
        for _ in range(200):
            if "a" not in store.read(["a"]):
                break
            end.wait(0.01)
        assert dict(store.read(["a", "b"])) == {"b": b"2"}
        assert store.forget(["a"]) == 0
        store.write([Record("a", b"3")])
        assert dict(store.read(["a"])) == {"a": b"3"}

    def test_a_final_record_reaches_the_inbox_it_names(
        self, store: ResultStore, open: Open
    ) -> None:
        (mine, got), (_, other) = open(), open()
        store.write([Record("a", b"started", final=False, reply=mine.address)])
        store.write([Record("a", b"done", reply=mine.address), Record("b", b"unasked")])
        store.write([Record("last", b"", reply=mine.address)])
        assert got.wait_for("a", "last") == {"a": b"done", "last": b""}
        assert other.bodies == {}

    def test_a_refused_record_is_not_delivered(self, store: ResultStore, open: Open) -> None:
        inbox, got = open()
        store.write([Record("a", b"new", deliveries=2)])
        store.write([Record("a", b"old", deliveries=1, reply=inbox.address)])
        store.write([Record("last", b"", reply=inbox.address)])
        assert got.wait_for("last") == {"last": b""}

    def test_watched_results_arrive_whoever_pushed_them(
        self, store: ResultStore, open: Open
    ) -> None:
        (one, got), (two, too) = open(), open()
        one.watch(["a", "b"])
        two.watch(["b"])
        store.write([Record("a", b"half", final=False), Record("b", b"B")])
        store.write([Record("a", b"A")])
        assert got.wait_for("a", "b") == {"a": b"A", "b": b"B"}
        assert too.wait_for("b") == {"b": b"B"}

    def test_watching_what_is_stored_delivers_it_at_once(
        self, store: ResultStore, open: Open
    ) -> None:
        store.write([Record("a", b"A"), Record("b", b"half", final=False)])
        inbox, got = open()
        inbox.watch(["a", "b"])
        assert got.wait_for("a") == {"a": b"A"}
        store.write([Record("b", b"B")])
        assert got.wait_for("a", "b") == {"a": b"A", "b": b"B"}

    def test_large_results_and_bursts_all_arrive(self, store: ResultStore, open: Open) -> None:
        ids = [f"id{n}" for n in range(3000)]
        inbox, got = open(lambda: [*ids, "large"])
        store.write([Record("large", b"x" * (1 << 20), reply=inbox.address)])
        for start in range(0, 3000, 25):
            chunk = ids[start : start + 25]
            store.write([Record(id, id.encode() * 20, reply=inbox.address) for id in chunk])
        found = got.wait_for("large", *ids)
        assert found["large"] == b"x" * (1 << 20)
        assert all(found[id] == id.encode() * 20 for id in ids)

    def test_ten_thousand_waiters_need_one_thread(self, store: ResultStore, open: Open) -> None:
        ids = [f"id{n}" for n in range(10_000)]
        before = threading.active_count()
        inbox, got = open(lambda: ids)
        inbox.watch(ids)
        assert threading.active_count() <= before + 1
        for start in range(0, 10_000, 1000):
            store.write([Record(id, b"{}") for id in ids[start : start + 1000]])
        assert len(got.wait_for(*ids)) == 10_000

    def test_a_failing_waiter_harms_no_other(self, store: ResultStore) -> None:
        received = Received()

        def deliver(id: str, body: bytes) -> None:
            received(id, body)
            if id == "a":
                raise ValueError("the waiter's own fault")

        inbox = store.inbox(deliver, nothing)
        connected(store, inbox, received)
        store.write([Record("a", b"1", reply=inbox.address)])
        store.write([Record("b", b"2", reply=inbox.address)])
        assert received.wait_for("a", "b") == {"a": b"1", "b": b"2"}
        inbox.close()

    def test_an_address_of_nobody_is_no_error(self, store: ResultStore, open: Open) -> None:
        inbox, got = open()
        inbox.close()
        inbox.close()
        for reply in (inbox.address, "bell-9999999", "fsdf:inbox:gone", "\n漢", "-1"):
            store.write([Record("a", b"1", reply=reply)])
        assert dict(store.read(["a"])) == {"a": b"1"}
        assert got.bodies == {}

    def test_an_address_cannot_be_guessed(self, store: ResultStore, open: Open) -> None:
        """Who knows the form of one, and all of another one's but its last digits, reaches none."""
        (one, got), (other, _) = open(), open()
        assert len(one.address) >= 32 + len("-")
        assert one.address[-32:] != other.address[-32:]
        guesses = [one.address[:-32], one.address[:-32] + other.address[-32:], one.address[:-1]]
        for guess in guesses:
            if guess != other.address:
                store.write([Record("a", b"forged", reply=guess)])
        store.write([Record("last", b"", reply=one.address)])
        assert got.wait_for("last") == {"last": b""}

    def test_writers_in_many_threads_lose_nothing(self, store: ResultStore, open: Open) -> None:
        ids = [f"{t}-{n}" for t in range(8) for n in range(50)]
        inbox, got = open(lambda: ids)

        def write(t: int) -> None:
            for n in range(50):
                store.write([Record(f"{t}-{n}", b"1", reply=inbox.address)])

        threads = [threading.Thread(target=write, args=(t,)) for t in range(8)]
        for thread in threads:
            thread.start()
        got.wait_for(*ids)
        for thread in threads:
            thread.join()
        assert len(store.read(ids)) == 400
