"""What a run pushes keeps its ids while nobody knows whether an attempt before has stored it."""

from __future__ import annotations

import asyncio

import pytest
from helpers import BOUND, until

from fsdf_engine import PublishError, Requeue, current, default_engine, task_deco
from fsdf_engine.contracts import Delivery, Job
from fsdf_engine.core.pushes import next_attempt, open_push, pushed_id

MEMORY = {"broker_kind": "memory", "retry_jitter": False}
THROUGH_THE_BROKER = {"retry_backoff": 1.01}


@pytest.fixture
def stored():
    """The broker, with the ids of the follow-ups that it was given and `answers` to give."""
    broker, given = default_engine().broker("memory"), []
    publish = broker.publish

    def watched(batch):
        publish(batch)
        for item in batch:
            if item.queue == "next":
                given.append(item.id)
                if broker.answers and (error := broker.answers.pop(0)):
                    raise error(batch)

    broker.publish, broker.answers, broker.given = watched, [], given
    return broker


def unknown(batch):
    return PublishError([], batch)


def rejected(batch):
    return PublishError(batch)


def follow():
    return task_deco("next", name="next", **MEMORY)(lambda n: None)


def ids_of(first, stored, count):
    first.push(1)
    first.consume()
    assert first.join(BOUND)
    until(lambda: len(stored.given) == count)
    return stored.given


@pytest.mark.parametrize(
    ("options", "ack"),
    [
        ({}, "late"),
        ({}, "early"),
        (THROUGH_THE_BROKER, "late"),
        (THROUGH_THE_BROKER, "early"),
    ],
)
def test_a_push_without_an_answer_has_its_id_in_the_next_attempt(stored, options, ack):
    follow_up = follow()

    @task_deco("asks", max_retry_times=3, retry_backoff_max=1.01, ack=ack, **options, **MEMORY)
    def first(n):
        follow_up.push(n)
        follow_up.push(n + 1)
        if current.attempt < 2:
            raise OSError("try again")

    stored.answers += [unknown]  # the first attempt gets no further than its first push
    found = ids_of(first, stored, 5)
    assert found[0] == found[1], "pushed again"
    assert len(set(found)) == 4, "an attempt whose former one was answered has ids of its own"


def test_the_same_holds_on_a_loop_and_for_what_was_given_up(stored):
    follow_up = follow()

    @task_deco("asks_async", max_retry_times=1, **MEMORY)
    async def first(n):
        push = asyncio.ensure_future(follow_up.apush(n))
        await asyncio.sleep(0)
        if current.attempt == 0:
            push.cancel()
            raise OSError("too slow")
        await push

    found = ids_of(first, stored, 2)
    assert found[0] == found[1]


@pytest.mark.parametrize("answer", [None, rejected])
def test_an_attempt_whose_pushes_were_all_answered_has_new_ids(stored, answer):
    follow_up = follow()

    @task_deco("answered", max_retry_times=1, **MEMORY)
    def first(n):
        follow_up.push(n)
        raise OSError("try again")

    stored.answers += [answer] * 5  # what is rejected alone is tried five times
    ids = ids_of(first, stored, 2 if answer is None else 6)
    assert len(set(ids)) == 2


def test_an_attempt_that_does_not_come_to_its_pushes_keeps_the_ids_for_the_next_one(stored):
    follow_up = follow()

    @task_deco("between", max_retry_times=3, **MEMORY)
    def first(n):
        if current.attempt != 1:
            follow_up.push(n)
        if current.attempt < 3:
            raise OSError("try again")

    stored.answers += [unknown]
    found = ids_of(first, stored, 3)
    assert found[0] == found[1] != found[2]


def test_a_message_that_goes_back_uncounted_keeps_the_ids(stored):
    follow_up, seen = follow(), []

    @task_deco("goes_back", max_retry_times=3, **MEMORY)
    def first(n):
        seen.append(current.attempt)
        if seen == [0, 1]:
            raise Requeue(delay=0)
        follow_up.push(n)

    stored.answers += [unknown]
    found = ids_of(first, stored, 2)
    assert seen == [0, 1, 1]
    assert found[0] == found[1]


def test_what_a_message_says_about_its_pushes_is_not_believed_blindly():
    for told in (None, 3, "x", [1], [1, "a", 2], [1, -1, 2], [1, 0, 1 << 40], [0, 0, 1], {"a": 1}):
        job = Job()
        job.id, job.attempt, job.pushes, job.extra = "id", 1, None, {}
        job.delivery = Delivery((0, 0), b"{}", state={"attempt": 1, "pushes": told})
        assert open_push(job) is None
        assert job.pushes.base == 1


def test_the_base_moves_on_with_the_attempt_and_stays_while_a_push_is_open():
    job = Job()
    job.id, job.attempt, job.pushes, job.extra = "id", 0, None, {}
    job.delivery = Delivery((0, 0), b"{}")
    ids = [pushed_id(job)]
    next_attempt(job, 1)
    ids.append(pushed_id(job))
    job.pushes.open[ids[1]] = 1
    next_attempt(job, 2)
    ids.append(pushed_id(job))
    assert ids[0] != ids[1] == ids[2]
    assert open_push(job) == (1, 1)
