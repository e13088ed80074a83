"""What marks of a result store must do; a part of `StoreConformance`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from ..contracts import Mark, Marks, ResultStore

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


def handed_out(marks: Marks, count: int, prefix: str = "") -> list[Mark]:
    """Return the first `count` lapsed marks, and whatever comes with them."""
    found: list[Mark] = []

    def enough() -> bool:
        found.extend(marks.lapsed(LONG, prefix))
        return len(found) >= count

    eventually(enough)
    return found


def names(marks: Sequence[Mark]) -> list[str]:
    """Return the names of marks, sorted."""
    return sorted(mark.name for mark in marks)


class MarkConformance:
    """Every test must pass unchanged. The store is empty when a test starts."""

    @pytest.fixture
    def marks(self, store: ResultStore) -> Iterator[Marks]:
        yield store.marks()
        store.close()

    def test_a_mark_is_put_once_and_read_unchanged(self, marks: Marks) -> None:
        value, name = b"\x00\r\n\xff" + b"x" * (1 << 20), 'ж漢字🎉 "%_*?\n'
        assert set(marks.put([Mark(name, value), Mark("empty")])) == {name, "empty"}
        assert set(marks.put([Mark(name, b"other"), Mark("b", b"2")])) == {"b"}
        found = marks.read(["b", name, "empty", "absent"])
        assert dict(found) == {name: value, "empty": b"", "b": b"2"}

    def test_no_marks_are_no_error(self, marks: Marks) -> None:
        assert not marks.put([])
        assert not marks.read([])
        assert marks.delete([]) == 0
        assert not marks.renew([], LONG)
        assert not marks.lapsed(LONG)

    def test_the_first_of_one_name_in_a_batch_is_put(self, marks: Marks) -> None:
        assert list(marks.put([Mark("a", b"1"), Mark("a", b"2")])) == ["a"]
        assert dict(marks.read(["a"])) == {"a": b"1"}

    def test_marks_and_results_of_one_name_are_apart(
        self, store: ResultStore, marks: Marks
    ) -> None:
        marks.put([Mark("a", b"mark")])
        assert not store.read(["a"])
        assert store.forget(["a"]) == 0
        assert dict(marks.read(["a"])) == {"a": b"mark"}

    @pytest.mark.parametrize("watched", [False, True])
    def test_deleted_marks_are_gone_and_counted(self, marks: Marks, watched: bool) -> None:
        marks.put([Mark("a", b"1", watched=watched), Mark("b", b"2")])
        assert marks.delete(["a", "absent"]) == 1
        assert dict(marks.read(["a", "b"])) == {"b": b"2"}
        assert list(marks.put([Mark("a", b"3")])) == ["a"]

    def test_a_mark_whose_life_has_ended_is_absent(self, marks: Marks) -> None:
        marks.put([Mark("a", b"1", SHORT), Mark("b", b"2")])
        eventually(lambda: "a" not in marks.read(["a"]))
        assert dict(marks.read(["a", "b"])) == {"b": b"2"}
        assert marks.delete(["a"]) == 0
        assert not marks.renew(["a"], LONG)
        assert list(marks.put([Mark("a", b"3")])) == ["a"]
        assert not marks.lapsed(LONG)  # it was not watched

    def test_a_renewed_mark_lives_on(self, marks: Marks) -> None:
        for watched in (False, True):
            marks.put([Mark(f"a{watched}", b"1", 1.0, watched)])
        marks.put([Mark("end", life=1.5)])
        assert set(marks.renew(["aFalse", "aTrue", "absent"], LONG)) == {"aFalse", "aTrue"}
        eventually(lambda: not marks.read(["end"]))
        assert set(marks.read(["aFalse", "aTrue"])) == {"aFalse", "aTrue"}
        assert not marks.lapsed(LONG)

    def test_a_renewal_may_shorten_a_life(self, marks: Marks) -> None:
        marks.put([Mark("a"), Mark("w", watched=True)])
        marks.renew(["a", "w"], SHORT)
        eventually(lambda: "a" not in marks.read(["a"]))
        assert names(handed_out(marks, 1)) == ["w"]

    def test_a_lapsed_mark_is_handed_to_one_and_stays(self, marks: Marks) -> None:
        marks.put([Mark("w", b"1", SHORT, watched=True), Mark("live", watched=True)])
        found = handed_out(marks, 1)
        assert [(mark.name, mark.value, mark.watched) for mark in found] == [("w", b"1", True)]
        assert not marks.lapsed(LONG)
        assert dict(marks.read(["w"])) == {"w": b"1"}
        assert not marks.put([Mark("w", b"2")])
        assert marks.delete(["w"]) == 1

    def test_a_lapsed_mark_is_handed_out_again_when_its_claim_has_ended(self, marks: Marks) -> None:
        marks.put([Mark("w", b"1", SHORT, watched=True)])
        for _ in range(2):
            eventually(lambda: names(marks.lapsed(SHORT)) == ["w"])
        assert marks.delete(["w"]) == 1
        marks.put([Mark("end", life=3 * SHORT)])
        eventually(lambda: not marks.read(["end"]))
        assert not marks.lapsed(LONG)

    def test_its_owner_takes_a_lapsed_mark_back_by_renewing_it(self, marks: Marks) -> None:
        marks.put([Mark("w", b"1", SHORT, watched=True)])
        eventually(lambda: names(marks.lapsed(SHORT)) == ["w"])
        assert list(marks.renew(["w"], LONG)) == ["w"]
        marks.put([Mark("end", life=3 * SHORT)])
        eventually(lambda: not marks.read(["end"]))
        assert not marks.lapsed(LONG)
        assert dict(marks.read(["w"])) == {"w": b"1"}

    def test_only_what_begins_with_the_prefix_is_handed_out(self, marks: Marks) -> None:
        marks.put([Mark(f"{kind}{n}", b"", SHORT, True) for kind in "%_" for n in range(3)])
        assert names(handed_out(marks, 3, "_")) == ["_0", "_1", "_2"]
        assert names(marks.lapsed(LONG)) == ["%0", "%1", "%2"]

    def test_many_lapsed_marks_come_in_parts_and_each_to_one(self, marks: Marks) -> None:
        all_ = {f"w{n:03}" for n in range(250)}
        marks.put([Mark(name, name.encode(), SHORT, True) for name in all_])
        found: list[Mark] = []

        def taken() -> bool:
            part = marks.lapsed(LONG)
            found.extend(part)
            assert len(part) <= 100
            return len(found) >= 250

        eventually(taken)
        assert names(found) == sorted(all_)
        assert all(mark.value == mark.name.encode() for mark in found)

    def test_of_many_who_put_one_name_one_is_told_that_it_was_absent(self, marks: Marks) -> None:
        won: list[str] = []

        def put() -> None:
            for n in range(20):
                won.extend(marks.put([Mark(str(n), b"1")]))

        threads = [threading.Thread(target=put) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == sorted(map(str, range(20)))

    def test_thousands_of_marks_are_one_call(self, marks: Marks) -> None:
        all_ = [f"id{n}" for n in range(5000)]
        assert len(marks.put([Mark(name, b"1") for name in all_])) == 5000
        assert len(marks.read(all_)) == 5000
        assert len(marks.renew(all_, LONG)) == 5000
        assert marks.delete(all_) == 5000
