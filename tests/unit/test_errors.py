"""What errors say."""

from __future__ import annotations

import pickle
import threading

import pytest

from fsdf_engine import errors
from fsdf_engine.errors import PublishError, TaskFailed, Unanswered


@pytest.mark.parametrize(
    ("rejected", "unknown", "text"),
    [
        (1, 0, "1 message was rejected: push it again"),
        (2, 0, "2 messages were rejected: push them again"),
        (
            0,
            1,
            "whether the broker stored 1 message is unknown:"
            " publish it again under the same task_id",
        ),
        (
            1,
            2,
            "1 message was rejected: push it again;"
            " whether the broker stored 2 messages is unknown:"
            " publish them again under the same task_id",
        ),
    ],
)
def test_what_was_not_stored_is_counted_and_what_to_do_is_told(rejected, unknown, text):
    assert str(PublishError([object()] * rejected, [object()] * unknown)) == text


def test_server_and_reason_of_what_was_not_stored_are_told_also_to_who_pushed_a_part():
    with pytest.raises(PublishError) as told:
        raise PublishError([], [object(), object()]) from Unanswered("Redis at h:1 was lost")
    assert str(told.value).endswith("under the same task_id; cause: Redis at h:1 was lost")
    part = told.value.part([], [object()])
    assert part.__cause__ is told.value.__cause__
    assert str(part).startswith("whether the broker stored 1 message is unknown")
    assert str(part).endswith("; cause: Redis at h:1 was lost")
    with pytest.raises(PublishError, match="push it again; cause: TimeoutError"):
        raise PublishError([object()]) from TimeoutError()


def pickled(error):
    return pickle.loads(pickle.dumps(error))


def test_what_was_not_stored_and_why_come_through_pickling():
    error = PublishError(["one"], ["two", "three"])
    assert str(pickled(error)) == str(error)
    error.__cause__ = Unanswered("Redis at h:1 was lost")
    error.__cause__.socket = threading.Lock()  # as those of client libraries may have one
    copied = pickled(pickled(error))
    assert str(copied) == str(error)
    assert (copied.rejected, copied.unknown) == (["one"], ["two", "three"])


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n[0].isupper() and n != "LARGEST"])
def test_every_error_comes_through_pickling(name):
    kind = getattr(errors, name)
    made = {PublishError: lambda: kind([b"1"]), TaskFailed: lambda: kind("no", status="failed")}
    error = made.get(kind, lambda: kind("no"))()
    copied = pickled(error)
    assert (type(copied), str(copied), copied.args) == (kind, str(error), error.args)
    assert vars(copied) == vars(error)
