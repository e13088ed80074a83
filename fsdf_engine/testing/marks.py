"""What marks of a result store must do; a part of `StoreConformance`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from ..contracts import Mark, ResultStore

__all__ = ["MarkConformance", "eventually"]

SHORT, LONG = 0.05, 60.0  # seconds


def eventually(condition: Callable[[], object], bound: float = 20.0) -> None:
    """Block until `condition()` holds: for a life that ends, which nothing signals."""
    pause = threading.Event()
    for _ in range(int(bound / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError(f"not within {bound} s")


def handed_out(store: ResultStore, count: int, prefix: str = "") -> list[Mark]:
    """Return the first `count` lapsed marks, and whatever comes with them."""
    found: list[Mark] = []

    def enough() -> bool:
        found.extend(store.lapsed(LONG, prefix))
        return len(found) >= count

    eventually(enough)
    return found


def names(marks: Sequence[Mark]) -> list[str]:
    """Return the names of marks, sorted."""
    return sorted(mark.name for mark in marks)


class MarkConformance:
    """Every test must pass unchanged. The store is empty when a test starts."""

    @pytest.fixture
    def marked(self, store: ResultStore) -> Iterator[ResultStore]:
        yield store
        store.close()

    def test_a_mark_is_put_once_and_read_unchanged(self, marked: ResultStore) -> None:
        value, name = b"\x00\r\n\xff" + b"x" * (1 << 20), 'ж漢字🎉 "%_*?\n'
        assert set(marked.put_marks([Mark(name, value), Mark("empty")])) == {name, "empty"}
        assert set(marked.put_marks([Mark(name, b"other"), Mark("b", b"2")])) == {"b"}
        found = marked.marks(["b", name, "empty", "absent"])
        assert dict(found) == {name: value, "empty": b"", "b": b"2"}

    def test_no_marks_are_no_error(self, marked: ResultStore) -> None:
        assert not marked.put_marks([])
        assert not marked.marks([])
        assert marked.delete_marks([]) == 0
        assert not marked.renew_marks([], LONG)
        assert not marked.lapsed(LONG)

    def test_the_first_of_one_name_in_a_batch_is_put(self, marked: ResultStore) -> None:
        assert list(marked.put_marks([Mark("a", b"1"), Mark("a", b"2")])) == ["a"]
        assert dict(marked.marks(["a"])) == {"a": b"1"}

    def test_marks_and_results_of_one_name_are_apart(self, marked: ResultStore) -> None:
        marked.put_marks([Mark("a", b"mark")])
        assert not marked.read(["a"])
        assert marked.forget(["a"]) == 0
        assert dict(marked.marks(["a"])) == {"a": b"mark"}

    @pytest.mark.parametrize("watched", [False, True])
    def test_deleted_marks_are_gone_and_counted(self, marked: ResultStore, watched: bool) -> None:
        marked.put_marks([Mark("a", b"1", watched=watched), Mark("b", b"2")])
        assert marked.delete_marks(["a", "absent"]) == 1
        assert dict(marked.marks(["a", "b"])) == {"b": b"2"}
        assert list(marked.put_marks([Mark("a", b"3")])) == ["a"]

    def test_a_mark_whose_life_has_ended_is_absent(self, marked: ResultStore) -> None:
        marked.put_marks([Mark("a", b"1", SHORT), Mark("b", b"2")])
        eventually(lambda: "a" not in marked.marks(["a"]))
        assert dict(marked.marks(["a", "b"])) == {"b": b"2"}
        assert marked.delete_marks(["a"]) == 0
        assert not marked.renew_marks(["a"], LONG)
        assert list(marked.put_marks([Mark("a", b"3")])) == ["a"]
        assert not marked.lapsed(LONG)  # it was not watched

    def test_a_renewed_mark_lives_on(self, marked: ResultStore) -> None:
        for watched in (False, True):
            marked.put_marks([Mark(f"a{watched}", b"1", 1.0, watched)])
        marked.put_marks([Mark("end", life=1.5)])
        assert set(marked.renew_marks(["aFalse", "aTrue", "absent"], LONG)) == {"aFalse", "aTrue"}
        eventually(lambda: not marked.marks(["end"]))
        assert set(marked.marks(["aFalse", "aTrue"])) == {"aFalse", "aTrue"}
        assert not marked.lapsed(LONG)

    def test_a_renewal_may_shorten_a_life(self, marked: ResultStore) -> None:
        marked.put_marks([Mark("a"), Mark("w", watched=True)])
        marked.renew_marks(["a", "w"], SHORT)
        eventually(lambda: "a" not in marked.marks(["a"]))
        assert names(handed_out(marked, 1)) == ["w"]

    def test_a_lapsed_mark_is_handed_to_one_and_stays(self, marked: ResultStore) -> None:
        marked.put_marks([Mark("w", b"1", SHORT, watched=True), Mark("live", watched=True)])
        found = handed_out(marked, 1)
        assert [(mark.name, mark.value, mark.watched) for mark in found] == [("w", b"1", True)]
        assert not marked.lapsed(LONG)
        assert dict(marked.marks(["w"])) == {"w": b"1"}
        assert not marked.put_marks([Mark("w", b"2")])
        assert marked.delete_marks(["w"]) == 1

    def test_a_lapsed_mark_is_handed_out_again_when_its_claim_has_ended(
        self, marked: ResultStore
    ) -> None:
        marked.put_marks([Mark("w", b"1", SHORT, watched=True)])
        for _ in range(2):
            eventually(lambda: names(marked.lapsed(SHORT)) == ["w"])
        assert marked.delete_marks(["w"]) == 1
        marked.put_marks([Mark("end", life=3 * SHORT)])
        eventually(lambda: not marked.marks(["end"]))
        assert not marked.lapsed(LONG)

    def test_its_owner_takes_a_lapsed_mark_back_by_renewing_it(self, marked: ResultStore) -> None:
        marked.put_marks([Mark("w", b"1", SHORT, watched=True)])
        eventually(lambda: names(marked.lapsed(SHORT)) == ["w"])
        assert list(marked.renew_marks(["w"], LONG)) == ["w"]
        marked.put_marks([Mark("end", life=3 * SHORT)])
        eventually(lambda: not marked.marks(["end"]))
        assert not marked.lapsed(LONG)
        assert dict(marked.marks(["w"])) == {"w": b"1"}

    def test_only_what_begins_with_the_prefix_is_handed_out(self, marked: ResultStore) -> None:
        marked.put_marks([Mark(f"{kind}{n}", b"", SHORT, True) for kind in "%_" for n in range(3)])
        assert names(handed_out(marked, 3, "_")) == ["_0", "_1", "_2"]
        assert names(marked.lapsed(LONG)) == ["%0", "%1", "%2"]

    def test_many_lapsed_marks_come_in_parts_and_each_to_one(self, marked: ResultStore) -> None:
        all_ = {f"w{n:03}" for n in range(250)}
        marked.put_marks([Mark(name, name.encode(), SHORT, True) for name in all_])
        found: list[Mark] = []

        def taken() -> bool:
            part = marked.lapsed(LONG)
            found.extend(part)
            assert len(part) <= 100
            return len(found) >= 250

        eventually(taken)
        assert names(found) == sorted(all_)
        assert all(mark.value == mark.name.encode() for mark in found)

    def test_of_many_who_put_one_name_one_is_told_that_it_was_absent(
        self, marked: ResultStore
    ) -> None:
        won: list[str] = []

        def put() -> None:
            for n in range(20):
                won.extend(marked.put_marks([Mark(str(n), b"1")]))

        threads = [threading.Thread(target=put) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == sorted(map(str, range(20)))

    def test_thousands_of_marks_are_one_call(self, marked: ResultStore) -> None:
        all_ = [f"id{n}" for n in range(5000)]
        assert len(marked.put_marks([Mark(name, b"1") for name in all_])) == 5000
        assert len(marked.marks(all_)) == 5000
        assert len(marked.renew_marks(all_, LONG)) == 5000
        assert marked.delete_marks(all_) == 5000
