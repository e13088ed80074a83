"""One conformance suite for every result store: subclass it, give a `store` fixture.

class TestMine(StoreConformance):
    @pytest.fixture
    def store(self):
        return MyStore("mine://127.0.0.1")
"""

from __future__ import annotations

import threading

from ..contracts import Record, ResultStore
from .fences import FenceConformance
from .inboxes import BOUND, Open, Received, connected, nothing
from .layouts import LayoutConformance
from .marks import MarkConformance, eventually

__all__ = ["BOUND", "Received", "StoreConformance", "connected", "nothing"]


class StoreConformance(FenceConformance, LayoutConformance, MarkConformance):
    """Every test must pass unchanged. The store is empty when a test starts."""

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

    def test_ends_are_read_apart_from_what_goes_on(self, store: ResultStore) -> None:
        store.write([Record("a", b"retry", final=False, origin="o"), Record("b", b"F", sends=3)])
        store.write([Record("c", b"end", deliveries=7), Record("d", b"p", final=False)])
        assert dict(store.read(["a", "b", "c", "d"], final=True)) == {"b": b"F", "c": b"end"}
        assert set(store.read(["a", "b", "c", "d"])) == {"a", "b", "c", "d"}

    def test_forgotten_results_are_gone_and_counted(self, store: ResultStore) -> None:
        store.write([Record("a", b"1", deliveries=5), Record("b", b"2")])
        assert store.forget(["a", "b", "c"]) == 2
        assert dict(store.read(["a", "b"])) == {}
        store.write([Record("a", b"3")])
        assert dict(store.read(["a"])) == {"a": b"3"}

    def test_expired_results_are_gone(self, store: ResultStore) -> None:
        store.write([Record("a", b"1", deliveries=5, expires=0.02), Record("b", b"2")])
        eventually(lambda: "a" not in store.read(["a"]))
        assert dict(store.read(["a", "b"])) == {"b": b"2"}
        assert store.forget(["a"]) == 0
        store.write([Record("a", b"3")])
        assert dict(store.read(["a"])) == {"a": b"3"}

    def test_a_record_may_live_for_ever(self, store: ResultStore) -> None:
        store.write([Record("a", b"1", expires=0.02), Record("b", b"2", expires=float("inf"))])
        eventually(lambda: "a" not in store.read(["a"]))
        assert dict(store.read(["b"])) == {"b": b"2"}

    def test_thousands_are_written_at_a_time_in_their_order(
        self, store: ResultStore, open: Open
    ) -> None:
        ids = [f"id{n}" for n in range(2500)]
        inbox, got = open(lambda: ids)
        ends = [Record(id, id.encode(), expires=60.0, reply=inbox.address) for id in ids]
        some = [Record(id, b"half", final=False, expires=50.0 + n % 2) for n, id in enumerate(ids)]
        store.write([*some[:50], *ends, *some[50:100]])
        assert got.wait_for(*ids) == {id: id.encode() for id in ids}
        assert dict(store.read(ids, final=True)) == got.bodies

    def test_a_final_record_reaches_the_inbox_it_names(
        self, store: ResultStore, open: Open
    ) -> None:
        (mine, got), (_, other) = open(), open()
        store.write([Record("a", b"started", final=False, reply=mine.address)])
        store.write([Record("a", b"done", reply=mine.address), Record("b", b"unasked")])
        store.write([Record("last", b"", reply=mine.address)])
        assert got.wait_for("a", "last") == {"a": b"done", "last": b""}
        assert other.bodies == {}

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

    def test_who_attends_an_inbox_is_given_what_he_waits_for(self, store: ResultStore) -> None:
        done, found, seen = threading.Lock(), list[bytes](), set[str]()
        done.acquire()

        def deliver(id: str, body: bytes) -> None:
            if id not in seen:  # it may come twice
                seen.add(id)
                found.append(body)
                done.release()

        inbox = store.inbox(deliver, lambda: ["1", "2", "3"])
        try:
            assert not inbox.attend(done, found, 0.01)
            for n in ("1", "2", "3"):
                record = Record(n, n.encode(), reply=inbox.address)
                writing = threading.Timer(0.01, store.write, [[record]])
                writing.start()
                assert inbox.attend(done, found, BOUND)
                assert found.pop() == n.encode()
                writing.join()
            inbox.resume()
        finally:
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
