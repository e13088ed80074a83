"""The conformance suite of codecs: derive a class from `CodecConformance`, give it three fixtures.

class TestMine(CodecConformance):
    @pytest.fixture
    def codec(self):
        return MyCodec()

    @pytest.fixture
    def write(self):
        return my_message  # (args, kwargs, control data) -> Outgoing

    @pytest.fixture
    def foreign(self):
        return [b"a body that is not of this form"]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from ..contracts import Codec, Delivery, Job, Outgoing, Plan

__all__ = ["CodecConformance", "Write", "opened"]
Write = Callable[[Sequence[Any], Mapping[str, Any], Mapping[str, Any]], Outgoing]

ARGS, KWARGS = ("x", [1, {"deep": None}]), {"last": 2.5, "名": "ж"}
CONTROL = {
    "task_id": "an id", "task": "some.task", "publish_time": 1795713798.25, "reply": "inbox",
    "expires": 1795713999.5, "headers": {"of": ["a", "layer"]},
}  # fmt: skip
COUNTS = {"sends": 0, "attempt": 0, "crashes": 0, "pushes": None}


def opened(codec: Codec, outgoing: Outgoing, priority: int = 0) -> Job:
    """Return a message of this form as a job, its envelope opened."""
    job = Job()
    job.delivery = Delivery((0, 0), outgoing.body, headers=outgoing.headers, priority=priority)
    job.plan = Plan("some.task", "here", None, None, lambda data, leading: (leading, data))
    job.codec, job.attempt = codec, 0
    found = codec.envelope(outgoing.body, outgoing.headers)
    assert found is not None, "it does not know its own message"
    job.extra, job.kept = found
    job.id = job.extra.get("task_id", "")
    return job


class CodecConformance:
    """Every test must pass unchanged."""

    changes: ClassVar[Mapping[str, Any]] = {"expires": 5.0, "headers": {"b": 1}}
    """Control data that a retry can change, and to what."""

    def again(self, job: Job, **changes: Any) -> Outgoing:
        """Return a job's message anew, with what the engine always gives."""
        return job.codec.again(job, {"task_id": job.id, **COUNTS, **changes})

    def test_envelope_tells_what_was_written(self, codec: Codec, write: Write) -> None:
        extra = opened(codec, write(ARGS, KWARGS, CONTROL)).extra
        assert {key: extra[key] for key in CONTROL} == CONTROL
        assert not extra.keys() & COUNTS.keys()

    def test_what_a_message_does_not_say_is_absent(self, codec: Codec, write: Write) -> None:
        extra = opened(codec, write((), {}, {"task_id": "id"})).extra
        assert not extra.keys() & (CONTROL.keys() | COUNTS.keys()) - {"task_id"}

    def test_bodies_of_other_forms_are_left_or_refused(
        self, codec: Codec, foreign: Sequence[bytes]
    ) -> None:
        for body in (b"", b"\xff\x00", b"[" * 100_000, b"null", b'"text', *foreign):
            try:
                assert codec.envelope(body, None) is None
            except ValueError:  # of this form, perhaps, and unreadable
                assert body not in foreign

    def test_arguments_are_what_was_written(self, codec: Codec, write: Write) -> None:
        self.has_arguments(opened(codec, write(ARGS, KWARGS, CONTROL)), ARGS, KWARGS)
        self.has_arguments(opened(codec, write((), {}, {"task_id": "id"})), (), {})

    def has_arguments(self, job: Job, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Check what the function would be called with."""
        found_args, found_kwargs = job.codec.arguments(job)
        assert (list(found_args), dict(found_kwargs)) == (list(args), dict(kwargs))

    def test_what_is_sent_anew_keeps_all_but_the_counts(self, codec: Codec, write: Write) -> None:
        job = opened(codec, write(ARGS, KWARGS, CONTROL), priority=3)
        counts = {"sends": 4, "attempt": 2, "crashes": 1, "pushes": [2, 0, 7]}
        outgoing = self.again(job, **counts)
        assert (outgoing.queue, outgoing.priority) == ("here", 3)
        new = opened(codec, outgoing)
        assert new.extra.keys() >= counts.keys()
        assert {**job.extra, **counts} == new.extra
        self.has_arguments(new, ARGS, KWARGS)
        gone = opened(codec, self.again(opened(codec, outgoing), sends=5)).extra
        assert gone == {**job.extra, "sends": 5}

    def test_what_has_run_is_sent_anew_as_it_came(self, codec: Codec, write: Write) -> None:
        job = opened(codec, write(ARGS, KWARGS, CONTROL))
        args, _ = job.args, job.kwargs = codec.arguments(job)
        args[1].append("of the run")
        self.has_arguments(opened(codec, self.again(job, sends=1)), ARGS, KWARGS)

    def test_changes_of_a_retry_are_in_the_message(self, codec: Codec, write: Write) -> None:
        job = opened(codec, write(ARGS, KWARGS, CONTROL))
        route = {"queue": "there", "priority": 9}
        outgoing = self.again(job, sends=1, **self.changes, **route)
        assert (outgoing.queue, outgoing.priority) == ("there", 9)
        new = opened(codec, outgoing)
        assert {**job.extra, **self.changes, "sends": 1} == new.extra
        self.has_arguments(new, ARGS, KWARGS)

    def test_a_change_that_this_form_does_not_have_is_refused(
        self, codec: Codec, write: Write
    ) -> None:
        with pytest.raises(Exception, match="no_such_change"):
            self.again(opened(codec, write(ARGS, KWARGS, CONTROL)), no_such_change=1)

    def test_a_replay_is_a_life_more_without_attempts(self, codec: Codec, write: Write) -> None:
        counts = {"attempt": 2, "crashes": 1, "pushes": [2, 0, 7]}
        job = opened(codec, write(ARGS, KWARGS, CONTROL))
        body = self.again(job, **counts).body
        for sends in (1, 2):
            body = codec.replayed(body)
            new = opened(codec, Outgoing("q", "", body))
            assert new.extra == {**job.extra, "sends": sends}
            self.has_arguments(new, ARGS, KWARGS)
