"""Results in the layout of another program; a part of `StoreConformance`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..contracts import Layout, Record, ResultStore
from ..errors import ArgumentError, ConfigurationError
from .inboxes import InboxFixture, Open
from .marks import eventually

__all__ = ["TOY", "LayoutConformance", "toy_ended"]


def toy_ended(body: bytes) -> bool:
    """Say whether a body is an end; of one that is none of this layout's, fail."""
    if not body.startswith((b"END", b"..")):
        raise ValueError(f"{body[:20]!r} is of no toy")
    return body.startswith(b"END")


TOY = Layout("toy", "toy-meta-", toy_ended)


def record(body: bytes, deliveries: int = 0, *, id: str = "a", reply: str = "") -> Record:
    """Return a record of the toy layout."""
    final = body.startswith(b"END")
    return Record(id, body, deliveries, final, reply=reply, origin="o", layout="toy")


class LayoutConformance(InboxFixture):
    """Every test must pass unchanged. The store is empty when a test starts."""

    @pytest.fixture
    def laid(self, store: ResultStore) -> Iterator[ResultStore]:
        """Give a store that knows the layout; skip where it says that it cannot."""
        try:
            store.add_layout(TOY)
        except ConfigurationError as error:
            store.close()
            pytest.skip(str(error))
        yield store
        store.close()

    def test_layouts_of_one_id_are_apart(self, laid: ResultStore) -> None:
        laid.write([Record("a", b"ours"), record(b"END theirs"), record(b"..", id="b")])
        assert dict(laid.read(["a", "b"])) == {"a": b"ours"}
        assert dict(laid.read(["a", "b"], layout="toy")) == {"a": b"END theirs", "b": b".."}
        assert dict(laid.read(["a", "b"], layout="toy", final=True)) == {"a": b"END theirs"}
        assert laid.forget(["a", "b", "c"], layout="toy") == 2
        assert dict(laid.read(["a"])) == {"a": b"ours"}
        assert not laid.read(["a"], layout="toy")

    def test_a_layout_is_fenced_as_any(self, laid: ResultStore) -> None:
        laid.write([record(b".. 1", 1)])
        laid.write([record(b"END stale", 0)])
        assert dict(laid.read(["a"], layout="toy")) == {"a": b".. 1"}
        laid.write([record(b"END 1", 1), record(b".. 2", 2)])
        assert dict(laid.read(["a"], layout="toy")) == {"a": b"END 1"}
        laid.write([Record("a", b"END forged", 9, origin="him", layout="toy")])
        laid.write([record(b"END 0", 0)])
        assert dict(laid.read(["a"], layout="toy")) == {"a": b"END 1"}
        laid.write([record(b"END 2", 2)])
        assert dict(laid.read(["a"], layout="toy")) == {"a": b"END 2"}

    def test_what_was_forgotten_or_has_expired_fences_nothing(self, laid: ResultStore) -> None:
        short = Record("b", b"END", 5, expires=0.02, layout="toy")
        laid.write([record(b"END 5", 5), short])
        laid.forget(["a"], layout="toy")
        eventually(lambda: not laid.read(["b"], layout="toy"))
        laid.write([record(b"END 1", 1), record(b"END 1", 1, id="b")])
        assert set(laid.read(["a", "b"], layout="toy").values()) == {b"END 1"}

    def test_ends_reach_the_inboxes_that_watch_the_layout(
        self, laid: ResultStore, open: Open
    ) -> None:
        (mine, got), (_, other) = open(layout="toy"), open()
        laid.write([record(b"END before", id="b")])
        mine.watch(["a", "b"])
        laid.write([record(b".. half"), Record("a", b"of no layout")])
        laid.write([record(b"END a")])
        assert got.wait_for("a", "b") == {"a": b"END a", "b": b"END before"}
        assert other.bodies == {}

    def test_an_end_reaches_the_inbox_it_names(self, laid: ResultStore, open: Open) -> None:
        inbox, got = open(layout="toy")
        laid.write([record(b".. half", reply=inbox.address)])
        laid.write([record(b"END\n1", reply=inbox.address) for _ in "12"])
        laid.write([record(b"END", id="last", reply=inbox.address)])
        assert got.wait_for("a", "last") == {"a": b"END\n1", "last": b"END"}

    def test_an_inbox_learns_of_what_it_missed(self, laid: ResultStore, open: Open) -> None:
        laid.write([record(b"END a"), record(b".. b", id="b")])
        inbox, got = open(lambda: ["a", "b"], layout="toy")
        inbox.watch(["a"])
        assert got.wait_for("a") == {"a": b"END a"}

    def test_an_unknown_layout_is_an_error(self, laid: ResultStore) -> None:
        with pytest.raises(ArgumentError, match="unknown result layout 'else'"):
            laid.write([Record("a", b"", layout="else")])
        with pytest.raises(ArgumentError, match="add_layout"):
            laid.read(["a"], layout="else")

    def test_a_layout_is_added_once_and_has_a_prefix(self, laid: ResultStore) -> None:
        laid.add_layout(TOY)
        for wrong in (Layout("toy", "elsewhere-", toy_ended), Layout("bare", "", toy_ended)):
            with pytest.raises(ConfigurationError, match="prefix of its own"):
                laid.add_layout(wrong)
