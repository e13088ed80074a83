"""One conformance suite for every store of groups: subclass it, give a `store` fixture.

class TestMine(GroupConformance):
    @pytest.fixture
    def store(self):
        return MyStore("mine://127.0.0.1")
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from ..contracts import Claim, Completed, Group, GroupStore, Member, Outgoing, ResultStore

__all__ = ["GroupConformance"]

BOUND = 20.0  # seconds; only a failing test reaches it
LONG, SHORT = 60.0, 0.05  # seconds that a claim lasts
MINE, HIS = Claim("p", "me", LONG), Claim("p", "him", LONG)


def group(id: str = "g", size: int | None = 2, expires: float = 60.0) -> Group:
    """Return a group whose message is told from others by its id."""
    return Group(id, Outgoing("q", f"body of {id}", b"{}"), size, expires=expires)


def ended(*places: int, of: str = "g", failed: bool = False) -> list[Member]:
    """Return members of a group by their places."""
    return [Member(of, f"m{place}", b"%d" % place, failed, place) for place in places]


def ids(completed: Sequence[Completed]) -> list[str]:
    """Return which groups were handed out."""
    return [each.id for each in completed]


def values(completed: Sequence[Completed]) -> list[bytes]:
    """Return the values of the only group that was handed out."""
    [only] = completed
    return [member.body for member in only.members]


def soon(call: Callable[[], Sequence[Completed]]) -> Sequence[Completed]:
    """Call until something is handed out, for what only time brings about."""
    pause = threading.Event()
    for _ in range(int(BOUND / 0.01)):
        if found := call():
            return found
        pause.wait(0.01)
    raise AssertionError("nothing was handed out")


class GroupConformance:
    """Every test must pass unchanged. The store is empty when a test starts."""

    @pytest.fixture
    def groups(self, store: ResultStore) -> Iterator[GroupStore]:
        yield store.groups()
        store.close()

    def test_the_last_member_completes_a_group(self, groups: GroupStore) -> None:
        headers = {"lang": "py", "ü": "漢\n"}
        body = Outgoing("q", "body", b"\x00\xff\n{}", headers, 1.5, 0.0, 7, 2.0, "k")
        other = Outgoing("r", "other", b"", None, 0.0, 12.25)
        assert groups.open([Group("g", body, 3, other, expires=50.0)], MINE) == []
        assert groups.add(ended(2, 0), MINE) == []
        [done] = groups.add([Member("g", "m1", b"\n\x00 1", True, 1)], MINE)
        assert (done.id, done.claims, done.expires) == ("g", 1, 50.0)
        assert [(m.group, m.id, m.body, m.failed, m.place) for m in done.members] == [
            ("g", "m0", b"0", False, 0),
            ("g", "m1", b"\n\x00 1", True, 1),
            ("g", "m2", b"2", False, 2),
        ]
        sent = done.body
        assert (sent.queue, sent.id, sent.body, dict(sent.headers or {})) == (
            "q", "body", b"\x00\xff\n{}", headers,
        )  # fmt: skip
        assert (sent.delay, sent.not_before, sent.priority, sent.ttl, sent.key) == (
            1.5, 0.0, 7, 2.0, "k",
        )  # fmt: skip
        assert done.on_failure is not None
        assert (done.on_failure.id, done.on_failure.not_before) == ("other", 12.25)

    def test_a_member_counts_once_and_its_first_value_stays(self, groups: GroupStore) -> None:
        groups.open([group(size=2)], MINE)
        for value in (b"first", b"second"):
            assert groups.add([Member("g", "a", value)] * 2, MINE) == []
        assert values(groups.add([Member("g", "b", b"", place=-1)], MINE)) == [b"", b"first"]

    def test_members_of_one_place_are_in_order_of_their_ids(self, groups: GroupStore) -> None:
        groups.open([group(size=3)], MINE)
        assert values(groups.add([Member("g", n, n.encode()) for n in "cab"], MINE)) == [
            b"a", b"b", b"c",
        ]  # fmt: skip

    def test_one_call_may_complete_many_groups(self, groups: GroupStore) -> None:
        groups.open([group(f"g{n}", 2) for n in range(50)], MINE)
        assert groups.add([m for n in range(50) for m in ended(0, of=f"g{n}")], MINE) == []
        done = groups.add([m for n in range(0, 50, 2) for m in ended(1, of=f"g{n}")], MINE)
        assert sorted(ids(done)) == sorted(f"g{n}" for n in range(0, 50, 2))
        assert all(len(each.members) == 2 for each in done)

    def test_nothing_may_be_told(self, groups: GroupStore) -> None:
        assert groups.open([], MINE) == [] == groups.add([], MINE)
        assert groups.claim(MINE) == []
        groups.close([], MINE)

    def test_a_completed_group_has_one_holder(self, groups: GroupStore) -> None:
        groups.open([group(size=1)], MINE)
        [first] = groups.add(ended(0), MINE)
        assert groups.add(ended(0), HIS) == [] == groups.claim(HIS)
        [again] = groups.add(ended(0), MINE)  # the answer may have been lost
        assert (again.id, again.claims, again.at) == ("g", 2, first.at)

    def test_a_claim_ends_and_a_sweep_hands_the_group_to_another(self, groups: GroupStore) -> None:
        groups.open([group(size=1)], MINE)
        [first] = groups.add(ended(0), Claim("p", "dead", SHORT))
        assert groups.claim(Claim("another place", "him", LONG)) == []
        [second] = soon(lambda: groups.claim(HIS))
        assert second == first._replace(claims=2, members=second.members, body=second.body)
        assert values([second]) == [b"0"]
        assert groups.claim(MINE) == [] == groups.add(ended(0), MINE)

    def test_a_sweep_has_a_limit_and_goes_on(self, groups: GroupStore) -> None:
        groups.open([group(f"g{n}", 0) for n in range(5)], Claim("p", "dead", 0.001))
        soon(lambda: groups.claim(Claim("p", "dying", 0.001), 1))
        found: list[str] = []
        while len(found) < 5:
            some = soon(lambda: groups.claim(MINE, 2))
            assert len(some) <= 2
            found += ids(some)
        assert sorted(found) == [f"g{n}" for n in range(5)]
        assert groups.claim(HIS, 2) == []

    def test_a_closed_group_is_over(self, groups: GroupStore) -> None:
        groups.open([group(size=1)], MINE)
        groups.add(ended(0), Claim("p", "me", SHORT))
        for _ in range(2):
            groups.close(["g", "nobody's"], MINE)
        assert groups.add(ended(0, 1), MINE) == []
        assert groups.open([group(size=1)], MINE) == []
        assert groups.set_size("g", 1, MINE) == []
        assert groups.grow("g", 1, "k") is False
        groups.open([group("h", 0)], Claim("p", "me", SHORT))
        assert ids(soon(lambda: groups.claim(HIS))) == ["h"]  # by now the claim of g has ended

    def test_a_completed_group_takes_no_more_members(self, groups: GroupStore) -> None:
        groups.open([group(size=1)], MINE)
        groups.add(ended(0), MINE)
        assert values(groups.add([*ended(1), Member("g", "m0", b"changed")], MINE)) == [b"0"]

    def test_a_group_that_is_opened_again_stays_as_it_is(self, groups: GroupStore) -> None:
        groups.open([group(size=2)], MINE)
        groups.add(ended(0), MINE)
        again = Group("g", Outgoing("q", "another", b""), 7)
        assert groups.open([again, again], MINE) == []
        [done] = groups.add(ended(1), MINE)
        assert done.body.id == "body of g"

    def test_a_group_that_is_over_begins_anew_where_it_is_opened_for_another_time(
        self, groups: GroupStore
    ) -> None:
        first, second = (Group("g", Outgoing("q", b, b"{}"), 1, run=b) for b in ("one", "two"))
        groups.open([first], MINE)
        groups.open([second], MINE)  # the first time lasts yet: this one is a part of it
        [done] = groups.add(ended(0), MINE)
        assert done.body.id == "one"
        groups.close(["g"], MINE)
        assert groups.open([first], MINE) == [] == groups.add(ended(1), MINE)
        assert groups.open([second], MINE) == []
        [again] = groups.add(ended(0), MINE)
        assert (again.body.id, again.claims) == ("two", 1)
        assert [member.id for member in again.members] == ["m0"]

    def test_a_group_that_begins_anew_is_not_closed_by_who_had_it_before(
        self, groups: GroupStore
    ) -> None:
        groups.open([group(size=1)], MINE)
        groups.add(ended(0), MINE)
        groups.open([Group("g", Outgoing("q", "another", b"{}"), 1, run="again")], HIS)
        groups.close(["g"], MINE)
        [done] = groups.add(ended(0), HIS)
        assert done.body.id == "another"

    def test_an_empty_group_is_complete_when_it_opens(self, groups: GroupStore) -> None:
        [done] = groups.open([group(size=0), group("h", 1)], MINE)
        assert (done.id, list(done.members)) == ("g", [])
        assert groups.open([group(size=0)], HIS) == []

    def test_a_size_may_be_told_later_and_completes(self, groups: GroupStore) -> None:
        groups.open([group(size=None), group("h", None)], MINE)
        assert groups.add(ended(0, 1), MINE) == []
        assert groups.set_size("g", 3, MINE) == []
        assert values(groups.add(ended(2), MINE)) == [b"0", b"1", b"2"]
        assert ids(groups.set_size("h", 0, MINE)) == ["h"]
        assert groups.set_size("h", 0, HIS) == []

    def test_a_size_that_is_below_what_has_ended_completes(self, groups: GroupStore) -> None:
        groups.open([group(size=None)], MINE)
        groups.add(ended(0, 1, 2), MINE)
        assert values(groups.set_size("g", 2, MINE)) == [b"0", b"1", b"2"]

    def test_a_size_does_not_change(self, groups: GroupStore) -> None:
        groups.open([group(size=2)], MINE)
        groups.add(ended(0), MINE)
        assert groups.set_size("g", 1, MINE) == []
        assert groups.set_size("g", 9, MINE) == []
        assert ids(groups.add(ended(1), MINE)) == ["g"]

    def test_a_group_grows_once_for_each_key(self, groups: GroupStore) -> None:
        groups.open([group(size=1), group("h", None)], MINE)
        assert [groups.grow("g", n, key) for n, key in ((2, "a"), (2, "a"), (1, "ü\n"))] == [
            True
        ] * 3
        assert groups.add(ended(0, 1, 2), MINE) == []
        assert ids(groups.add(ended(3), MINE)) == ["g"]
        assert groups.grow("g", 2, "a") is True  # it was heard; the answer may have been lost
        assert groups.grow("g", 1, "too late") is False
        assert groups.grow("h", 1, "k") is True
        groups.add(ended(0, of="h"), MINE)
        assert groups.set_size("h", 1, MINE) == []
        assert ids(groups.add(ended(1, of="h"), MINE)) == ["h"]

    def test_a_group_that_is_not_there_is_told_in_the_log(
        self, groups: GroupStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        groups.open([group(size=1)], MINE)
        assert ids(groups.add([*ended(0, of="nobody's"), *ended(0)], MINE)) == ["g"]
        assert groups.set_size("gone", 0, MINE) == []
        assert groups.grow("lost", 1, "k") is False
        told = [getattr(record, "group", None) for record in caplog.records]
        assert told == ["nobody's", "gone"]

    def test_a_group_that_is_never_complete_is_gone_in_the_end(
        self, groups: GroupStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        groups.open([group(size=1, expires=0.02)], MINE)
        soon_gone = threading.Event()
        for _ in range(1000):
            if not groups.grow("g", 1, "k"):
                break
            soon_gone.wait(0.03)
        assert groups.add(ended(0, 1), MINE) == []
        assert groups.open([group(size=1)], MINE) == []  # nothing of the former is left
        assert ids(groups.add(ended(5), MINE)) == ["g"]

    def test_members_renew_a_groups_life(self, groups: GroupStore) -> None:
        groups.open([group(size=1000, expires=2.0), group("h", 1, 0.05)], MINE)
        pause, end, place = threading.Event(), time.monotonic() + 2.2, 0
        while time.monotonic() < end:  # longer than its life
            place += 1
            assert groups.add(ended(place), MINE) == []
            pause.wait(0.05)
        assert groups.grow("g", 1, "it lives") is True
        assert groups.add(ended(0, of="h"), MINE) == []

    def test_wrong_numbers_are_refused(self, groups: GroupStore) -> None:
        with pytest.raises(ValueError, match="-1 members"):
            groups.open([group(size=-1)], MINE)
        groups.open([group(size=None)], MINE)
        with pytest.raises(ValueError, match="-1 members"):
            groups.set_size("g", -1, MINE)
        for by in (0, -2):
            with pytest.raises(ValueError, match="give 1 or more"):
                groups.grow("g", by, "k")

    def test_a_value_that_is_too_large_is_a_failed_member(
        self, groups: GroupStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(GroupStore, "LARGEST", 100)
        groups.open([group(size=3)], MINE)
        large = [Member("g", f"m{n}", b"x" * 60, place=n) for n in range(2)]
        groups.add(large[:1], MINE)
        groups.add(large[1:], MINE)
        [done] = groups.add(ended(2), MINE)
        assert [member.failed for member in done.members] == [False, True, False]
        assert b"60 bytes is too large" in done.members[1].body

    def test_members_added_by_many_complete_once(self, groups: GroupStore) -> None:
        groups.open([group(f"g{n}", 8) for n in range(25)], MINE)
        completed: list[str] = []
        start = threading.Barrier(8)

        def add(place: int) -> None:
            start.wait(BOUND)
            for n in range(25):
                done = groups.add(ended(place, of=f"g{n}"), Claim("p", f"thread {place}", LONG))
                completed.extend(ids(done))

        threads = [threading.Thread(target=add, args=(place,)) for place in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(completed) == sorted(f"g{n}" for n in range(25))
