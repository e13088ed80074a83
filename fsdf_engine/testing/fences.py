"""Which record a result store refuses; a part of `StoreConformance`."""

from __future__ import annotations

from ..contracts import Record, ResultStore
from .inboxes import InboxFixture, Open

__all__ = ["FenceConformance"]


class FenceConformance(InboxFixture):
    """Every test must pass unchanged. The store is empty when a test starts."""

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

    def test_a_refused_record_is_not_delivered(self, store: ResultStore, open: Open) -> None:
        inbox, got = open()
        store.write([Record("a", b"new", deliveries=2)])
        store.write([Record("a", b"old", deliveries=1, reply=inbox.address)])
        store.write([Record("last", b"", reply=inbox.address)])
        assert got.wait_for("last") == {"last": b""}

    def test_a_refused_record_keeps_no_other_from_being_told(
        self, store: ResultStore, open: Open
    ) -> None:
        (mine, got), (his, told) = open(), open()
        store.write([Record("a", b"new", deliveries=2, origin="me"), Record("b", b"mine", 0)])
        stale = Record("a", b"old", deliveries=1, origin="me", reply=mine.address)
        forged = Record("a", b"forged", origin="him", reply=his.address)
        others = [Record(id, id.encode(), 1, reply=mine.address) for id in ("b", "c")]
        store.write([stale, others[0], forged, others[1]])
        assert got.wait_for("b", "c") == {"b": b"b", "c": b"c"}
        assert told.wait_for("a") == {"a": b"forged"}
        assert dict(store.read(["a", "b", "c"])) == {"a": b"new", "b": b"b", "c": b"c"}

    def test_an_earlier_attempt_changes_nothing(self, store: ResultStore) -> None:
        store.write([Record("a", b"2", final=False, attempt=10, origin="o")])
        store.write([Record("a", b"1", final=False, attempt=9, origin="o")])
        assert dict(store.read(["a"])) == {"a": b"2"}
        store.write([Record("a", b"end", attempt=11, origin="o")])
        store.write([Record("a", b"stale", attempt=10, origin="o"), Record("a", b"old")])
        assert dict(store.read(["a"])) == {"a": b"end"}
        store.write([Record("a", b"end, told again", attempt=11, origin="o")])
        assert dict(store.read(["a"])) == {"a": b"end, told again"}

    def test_replay_after_retries(self, store: ResultStore, open: Open) -> None:
        inbox, got = open()
        for attempt in range(3):
            store.write([Record("a", b"retry", 0, False, origin="o", attempt=attempt)])
        store.write([Record("a", b"failed", origin="o", attempt=3)])
        replayed = Record("a", b"right", sends=1, origin="o", reply=inbox.address)
        store.write([replayed])
        store.write([Record("a", b"stale", deliveries=9, origin="o", attempt=9)])
        assert dict(store.read(["a"])) == got.wait_for("a") == {"a": b"right"}

    def test_kill_in_an_attempt_in_place_after_its_progress(self, store: ResultStore) -> None:
        store.write([Record("a", b"half of attempt 2", final=False, origin="o", attempt=2)])
        store.write([Record("a", b"elsewhere", 1, False, origin="o")])
        assert dict(store.read(["a"])) == {"a": b"elsewhere"}
        store.write([Record("a", b"end", 1, origin="o")])
        assert dict(store.read(["a"])) == {"a": b"end"}

    def test_a_stalled_owner_changes_nothing(self, store: ResultStore) -> None:
        store.write([Record("a", b"p", 1, False, origin="o")])
        store.write([Record("a", b"stale", origin="o", attempt=5)])
        assert dict(store.read(["a"])) == {"a": b"p"}
        store.write([Record("a", b"end", 1, origin="o"), Record("a", b"stale", 0, attempt=5)])
        assert dict(store.read(["a"])) == {"a": b"end"}

    def test_an_early_retry_is_a_new_message(self, store: ResultStore) -> None:
        """Its deliveries begin anew; the one before was redelivered, and kept its attempts."""
        store.write([Record("a", b"retry", 2, False, origin="o", attempt=7)])
        store.write([Record("a", b"retry", 0, False, origin="o", attempt=8, sends=1)])
        store.write([Record("a", b"end", origin="o", attempt=9, sends=2)])
        store.write([Record("a", b"stale", 3, origin="o", attempt=20, sends=1)])
        assert dict(store.read(["a"])) == {"a": b"end"}

    def test_who_does_not_know_the_attempt_ends_what_went_on_and_yields_to_who_does(
        self, store: ResultStore, open: Open
    ) -> None:
        inbox, got = open()
        store.write([Record("a", b"half", final=False, origin="o", attempt=2)])
        store.write([Record("a", b"lost", origin="o", attempt=-1, reply=inbox.address)])
        assert got.wait_for("a") == {"a": b"lost"}
        store.write([Record("a", b"right", origin="o")])
        store.write([Record("a", b"lost", origin="o", attempt=-1)])
        assert dict(store.read(["a"])) == {"a": b"right"}

    def test_of_very_many_attempts_the_last_stays(self, store: ResultStore) -> None:
        for attempt in (5000, 1 << 30):
            store.write(
                [Record("a", b"%d" % attempt, 7, origin="o" * 16, attempt=attempt, sends=9)]
            )
        assert dict(store.read(["a"])) == {"a": b"%d" % (1 << 30)}
