"""What user code raises to steer its message: checked where it is made, found in any group."""

from __future__ import annotations

import datetime
import math
import sys

import pytest
from helpers import BOUND, until

from fsdf_engine import ConfigurationError, Reject, Requeue, Retry, RetryPolicy, task_deco
from fsdf_engine.contracts import outcomes
from fsdf_engine.outcomes import Deadline, Interrupted

if sys.version_info >= (3, 11):
    Group = BaseExceptionGroup  # noqa: F821
else:
    Group = pytest.importorskip("exceptiongroup").BaseExceptionGroup

POLICY = RetryPolicy(max_retries=2, backoff=3.0, jitter=False)


@pytest.mark.parametrize("kind", [Retry, Requeue])
@pytest.mark.parametrize(
    ("given", "seconds"), [(0, 0.0), (2, 2.0), (0.5, 0.5), (datetime.timedelta(minutes=1), 60.0)]
)
def test_a_delay_is_seconds_or_a_timedelta(kind, given, seconds):
    assert kind("why", delay=given).delay == seconds


@pytest.mark.parametrize("kind", [Retry, Requeue])
@pytest.mark.parametrize(
    "delay",
    [-1, math.nan, math.inf, -math.inf, 10**400, "5", True, [1], datetime.timedelta(seconds=-1)],
    ids=lambda value: str(value)[:12],
)
def test_a_delay_that_is_none_is_refused_where_it_is_raised(kind, delay):
    with pytest.raises(ConfigurationError, match="delay=.*give a timedelta, or seconds"):
        kind(delay=delay)


@pytest.mark.parametrize("name", ["backoff", "backoff_max"])
@pytest.mark.parametrize("wait", [-1, math.nan, math.inf, 1e300, "5", datetime.timedelta(1)])
def test_a_policy_whose_waits_are_none_is_refused(name, wait):
    with pytest.raises(ConfigurationError, match=f"{name}=.*give seconds from 0 to"):
        RetryPolicy(**{name: wait})


def test_a_wrong_delay_in_a_run_is_told_with_its_line():
    @task_deco("wrong_delay", broker_kind="memory", max_retry_times=0)
    def work():
        raise Retry(delay=math.inf)

    work.push()
    work.consume()
    assert work.join(BOUND)
    until(lambda: work.size().dead)
    [letter] = work.dead_letters()
    assert letter.reason.startswith("ConfigurationError: delay=inf")
    assert "raise Retry(delay=math.inf)" in letter.trace


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ([Retry(delay=7)], outcomes.Retry(None, 7.0, 1)),
        ([ValueError(), Group("inner", [Retry(delay=7)])], outcomes.Retry(None, 7.0, 1)),
        ([Retry(delay=1), Retry(delay=9), Retry()], outcomes.Retry(None, 9.0, 1)),
        ([Retry(delay=1), Retry()], outcomes.Retry(None, 3.0, 1)),
        ([Retry(), Reject("no"), Requeue()], outcomes.Rejected("no")),
        ([Requeue(delay=2), Retry(delay=1)], outcomes.Retry(None, 1.0, 1)),
        ([KeyError(), Requeue(delay=2), Requeue(delay=5)], outcomes.Requeue(5.0)),
        ([Deadline(), Reject()], outcomes.TimedOut(8.0)),
    ],
)
def test_what_steers_inside_a_group_acts(inside, expected):
    error = Group("several", inside)
    found = POLICY.outcome(error, 0, 8.0)
    assert type(found) is type(expected)
    if type(found) is outcomes.Retry:
        assert found.error is error
        found = found._replace(error=None)
    assert found == expected


def test_an_interrupt_inside_a_group_gives_the_message_back():
    outcome = POLICY.outcome(Group("several", [Interrupted(), Reject()]), 0)
    assert not outcomes.ended(outcome)


def test_a_group_without_retries_left_fails_as_a_whole():
    error = Group("several", [Retry(delay=1), OSError()])
    assert POLICY.outcome(error, 2).error is error


@pytest.mark.parametrize(
    ("inside", "again"),
    [
        ([OSError(), TimeoutError()], True),
        ([OSError(), ValueError()], False),
        ([OSError(), Group("inner", [FileNotFoundError()])], False),
    ],
)
def test_a_group_is_retried_if_all_in_it_are(inside, again):
    policy = RetryPolicy(retry_on=(OSError,), never_on=(FileNotFoundError,))
    found = policy.outcome(Group("several", inside), 0)
    assert (type(found) is outcomes.Retry) is again


# ------------------------------------------------------------------ why, when no other follows


def _with_cause():
    try:
        raise OSError("away")
    except OSError as error:
        raise Retry("later") from error


def _while_handling():
    try:
        raise OSError("away")
    except OSError:
        raise Retry  # noqa: B904


def _hidden():
    try:
        raise OSError("away")
    except OSError:
        raise Retry("later") from None


def _of_a_retry():
    try:
        _with_cause()
    except Retry as error:
        raise Retry("again") from error


def _in_a_circle():
    one, two = Retry("one"), Retry("two")
    one.__cause__, two.__cause__ = two, one
    raise one


@pytest.mark.parametrize(
    ("work", "retry", "cause"),
    [
        (_with_cause, "Retry: later", "; cause: OSError: away"),
        (_while_handling, "Retry", "; cause: OSError: away"),
        (_hidden, "Retry: later", ""),
        (_of_a_retry, "Retry: again", "; cause: OSError: away"),
        (_in_a_circle, "Retry: one", ""),
    ],
)
def test_a_retry_tells_why_and_the_last_one_which_attempt_it_was(work, retry, cause):
    with pytest.raises(Retry) as raised:
        work()
    assert outcomes.describe(POLICY.outcome(raised.value, 1)) == f"{retry}{cause}"
    last = POLICY.outcome(raised.value, 2)
    assert type(last) is outcomes.Failed
    assert last.reason == f"{retry} (attempt 3, the last){cause}"


def test_a_dead_letter_of_a_retry_tells_its_cause():
    work = task_deco("caused", broker_kind="memory", max_retry_times=1)(_while_handling)
    work.push()
    work.consume()
    until(lambda: work.size().dead)
    [letter] = work.dead_letters()
    assert letter.reason == "Retry (attempt 2, the last); cause: OSError: away"
    assert 'raise OSError("away")' in letter.trace
