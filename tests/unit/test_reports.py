"""What a worker tells of its messages: every end that is no success, and figures at intervals."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time

import pytest
from helpers import BOUND, until

from fsdf_engine import Reject, Requeue, Retry, current, patch_frame_config, task_deco
from fsdf_engine.engine import default_engine
from fsdf_engine.log import RunContext
from fsdf_engine.log.reports import Reports
from fsdf_engine.log.storms import FEW


@pytest.fixture
def declare(caplog):
    """`declare(fn, **options)` -> a task in memory; everything at INFO is captured."""
    caplog.set_level(logging.INFO, "fsdf")
    caplog.handler.setLevel(logging.NOTSET)
    caplog.handler.addFilter(RunContext())

    def declare(fn, queue="q", **options):
        return task_deco(queue, **{"broker_kind": "memory", "max_retry_times": 0, **options})(fn)

    return declare


@pytest.fixture
def lines(caplog):
    """`lines(level)` -> the records of consumers at this level."""

    def lines(level, name="fsdf.queue"):
        return [r for r in caplog.records if r.levelno == level and r.name.startswith(name)]

    return lines


def work_off(task, *calls):
    """Run the calls to their end, and stop."""
    results = [task.push(*call) for call in calls]
    handle = task.consume()
    assert task.join(BOUND)
    handle.stop()
    return [result.task_id for result in results]


def fail(n):
    raise ValueError(f"no {n}")


@pytest.mark.parametrize("backoff", [0.0, 0.01])
def test_each_retry_is_a_warning_and_the_end_an_error_with_its_traceback(declare, lines, backoff):
    [id] = work_off(declare(fail, max_retry_times=2, retry_backoff=backoff), (7,))
    first, second = lines(logging.WARNING)
    assert f"task q {id} failed in attempt 1 of 3" in first.getMessage()
    assert "ValueError: no 7 (" in first.getMessage()
    assert ("at once" if not backoff else "in 0.0 s") in second.getMessage()
    assert (first.task_id, first.queue, first.task, first.attempt) == (id, "q", "q", 0)
    assert second.attempt == 1
    [error] = lines(logging.ERROR)
    assert "given up after 3 attempts: ValueError: no 7" in error.getMessage()
    assert error.exc_info[1].args == ("no 7",)
    assert error.exc_info[2].tb_frame.f_code is fail.__code__  # no frames of the engine
    assert error.place == (__file__, fail.__code__.co_firstlineno + 1)


def test_retries_through_the_broker_are_told_alike(declare, lines):
    def later(n):
        raise Retry(delay=1.01)

    work_off(declare(later, max_retry_times=1), (1,))
    [retry] = lines(logging.WARNING)
    assert "runs again in 1.0 s" in retry.getMessage()
    assert len(lines(logging.ERROR)) == 1


def test_retry_that_moves_its_message_says_where_to_and_what_is_new(declare, lines):
    ran = []

    def moves(n):
        queue, name = ("others", "named") if current.queue == "q" else ("last", "")
        raise Retry(changes={"queue": queue, "task": name, "args": ["secret"], "kwargs": {}})

    task = declare(moves, max_retry_times=5)
    others = declare(moves, queue="others", name="named", max_retry_times=5)
    last = declare(ran.append, queue="last")
    handles = [each.consume() for each in (task, others, last)]
    task.push(1)
    until(lambda: ran == ["secret"])  # from a task without a name to one with, and back
    for handle in handles:
        handle.stop()
    said = [record.getMessage() for record in lines(logging.WARNING)]
    one, two = sorted(said, key=lambda text: "on queue last" in text)  # each by its own thread
    assert "runs again at once on queue others with other args, kwargs, task: Retry" in one
    assert "runs again at once on queue last with other args, kwargs, task: Retry" in two
    assert "secret" not in one + two


def test_coroutines_are_told_alike(declare, lines):
    async def fails(n):
        await asyncio.sleep(0)
        raise ValueError("no")

    work_off(declare(fails, max_retry_times=1), (1,))
    assert len(lines(logging.WARNING)) == len(lines(logging.ERROR)) == 1


def test_dead_letters_of_every_kind_are_errors_with_reason_and_way(declare, lines):
    def reject(n):
        raise Reject("nobody lives there")

    def slow(n):
        stay.wait(BOUND)

    stay = threading.Event()
    work_off(declare(reject, "rejects"), (1,))
    work_off(declare(slow, "slow", function_timeout=0.05), (1,))
    stay.set()
    good = declare(lambda n: None, "good", name="known")
    for name, message in (("known", {"m": 1}), ("other", {"n": 1})):
        default_engine().remote("good", name=name, broker_kind="memory").publish(message)
    work_off(good)
    told = [record.getMessage() for record in lines(logging.ERROR)]
    assert len(told) == 4
    assert all("is a dead letter: " in text for text in told)
    assert all(text.endswith("see the task's dead_letters()") for text in told)
    for reason in ("nobody lives there", "limit of 0.05 s", "invalid", "'other'"):
        assert sum(reason in text for text in told) == 1


def test_dead_letters_of_a_shared_broker_are_seen_by_a_command(declare, lines, tmp_path):
    task = declare(fail, "my queue", broker_kind="sqlite", broker_url=str(tmp_path / "q.sqlite"))
    work_off(task, (1,))
    [error] = lines(logging.ERROR)
    way = f"see fsdf dead list 'my queue' --broker sqlite --url {tmp_path}/q.sqlite"
    assert error.getMessage().endswith(way)


def test_effect_that_cannot_be_stored_is_told_as_a_dead_letter(declare, lines, monkeypatch):
    task = declare(lambda n: n, is_using_rpc_mode=True)

    def refuse(records):
        raise ValueError("too big")

    monkeypatch.setattr(task._services()[1].store, "write", refuse)
    work_off(task, (1,))
    [error] = lines(logging.ERROR)
    assert "given up after 1 attempt" in error.getMessage()
    assert "an effect failed 5 times: ValueError('too big')" in error.getMessage()


def test_failures_that_are_not_kept_say_so(declare, lines):
    work_off(declare(fail, keep_failed=False), (1,))
    work_off(declare(fail, "t", keep_failed=False, function_timeout=5), (1,))
    assert all("it is gone" in record.getMessage() for record in lines(logging.ERROR))
    assert len(lines(logging.ERROR)) == 2


def test_expired_messages_are_one_line_of_information(declare, lines):
    task = declare(lambda n: None)
    task.publish({"n": 1}, expires=time.time() - 1)
    work_off(task)
    [told, _] = lines(logging.INFO)
    assert "was not run: the message expired" in told.getMessage()


def test_of_a_storm_the_first_are_told_and_the_rest_is_counted(declare, lines):
    work_off(declare(fail), *[(n,) for n in range(50)])
    *whole, count = lines(logging.ERROR)
    assert len(whole) == FEW
    assert f"{50 - FEW} more in the last" in count.getMessage()
    assert "failures of task q by ValueError" in count.getMessage()


def test_messages_that_go_back_are_not_told(declare, lines, caplog):
    seen = []

    def once(n):
        seen.append(n)
        if len(seen) == 1:
            raise Requeue(delay=0)

    work_off(declare(once), (1,))
    assert lines(logging.WARNING) == lines(logging.ERROR) == []


def test_error_that_cannot_be_shown_ends_nothing(declare, lines):
    class Odd(Exception):
        def __str__(self):
            raise SystemExit("no text")

    def odd(n):
        raise Odd("redis://bob:secret@host\n\x1b[31m")

    def red(n):
        raise ValueError("redis://bob:secret@host\n\x1b[31m")

    work_off(declare(odd, "odd"), (1,))
    work_off(declare(red, "red"), (1,))
    first, second = lines(logging.ERROR)
    assert "<Odd without text: SystemExit>" in first.getMessage()
    assert "redis://bob:***@host \\x1b[31m" in second.getMessage()


def test_filter_that_fails_harms_no_message(declare, caplog):
    def refuse(record):
        raise SystemError("no")

    task = declare(fail)
    logger = logging.getLogger("fsdf.queue.q")
    logger.addFilter(refuse)
    try:
        work_off(task, (1,), (2,))
    finally:
        logger.removeFilter(refuse)
    assert task.size().dead == 2


# ------------------------------------------------------------------ records of runs


def test_what_a_run_logs_says_which_run_it_is(declare, caplog):
    def talk(n):
        logging.getLogger("shop").warning("hello")

    [id] = work_off(declare(talk, "talks"), (1,))
    logging.getLogger("shop").warning("outside")
    inside, outside = [r for r in caplog.records if r.name == "shop"]
    facts = [(r.queue, r.task, r.task_id, r.attempt) for r in (inside, outside)]
    assert facts == [("talks", "talks", id, 0), ("", "", "", "")]


# ------------------------------------------------------------------ figures


def test_figures_are_told_at_intervals_and_at_the_end_and_never_without_news(declare, lines):
    patch_frame_config(LOG_INTERVAL=1)
    task = declare(lambda n: None, concurrent_num=1)
    task.push_many((n,) for n in range(100))
    task.publish({"n": 0}, countdown=30)
    handle = task.consume()
    until(lambda: lines(logging.INFO))
    [figures] = lines(logging.INFO)
    assert "queue q: " in figures.getMessage()
    assert figures.getMessage().endswith(" 0 errors, 0 waiting, 1 delayed")
    assert 0 < figures.starts_per_second <= 101
    assert 0 < figures.p50 <= figures.p95
    report = handle.consumer.report
    until(lambda: report._thread is None)  # nobody waits for the next interval
    task.push(1)
    until(lambda: handle.consumer.outbox.settled == 101)
    handle.stop()
    assert len(lines(logging.INFO)) == 2


def test_the_last_rate_is_that_of_the_time_in_which_there_was_work(declare, lines):
    task = declare(lambda n: None, concurrent_num=1)
    task.push_many((n,) for n in range(100))
    handle = task.consume()
    report: Reports = handle.consumer.report
    until(lambda: handle.consumer.outbox.settled == 100)
    report._durations.last -= 1000.0  # as if it had had nothing to do since
    report._told_at = report._durations.last - 5.0
    handle.stop()
    assert "queue q: 20.0 starts/s, " in lines(logging.INFO)[-1].getMessage()


def test_figures_ask_the_broker_once_an_interval(declare, lines, monkeypatch):
    patch_frame_config(LOG_INTERVAL=1)
    task, asked = declare(fail), []
    broker = default_engine().broker_of(task.options)
    size = broker.size
    monkeypatch.setattr(broker, "size", lambda queue: asked.append(queue) or size(queue))
    task.push(1)
    handle = task.consume()
    until(lambda: lines(logging.INFO))
    until(lambda: handle.consumer.report._thread is None)
    handle.stop()
    assert asked == ["q"]
    assert "1 error, 0 waiting" in lines(logging.INFO)[0].getMessage()


def test_long_runs_count_as_starts_when_they_start(declare, lines):
    patch_frame_config(LOG_INTERVAL=1)
    stay = threading.Event()
    task = declare(lambda n: stay.wait(BOUND), concurrent_num=2)
    task.push_many((n,) for n in range(3))
    handle = task.consume()
    until(lambda: lines(logging.INFO))
    told = lines(logging.INFO)[0].getMessage()
    assert re.search(r" [12]\.\d starts/s, 0 errors, 1 waiting", told)  # two in about a second
    stay.set()
    handle.stop()


def test_broker_that_cannot_count_costs_the_line_nothing_else(declare, lines, monkeypatch):
    def refuse(queue):
        raise OSError("away")

    task = declare(fail)
    handle = task.consume()
    report: Reports = handle.consumer.report
    monkeypatch.setattr(report, "_size", refuse)
    task.push(1)
    until(lambda: handle.consumer.outbox.settled)
    until(lambda: lines(logging.ERROR))
    report._tell_interval(report._size)
    assert lines(logging.INFO)[0].getMessage().endswith("1 error")
    handle.stop()


# ------------------------------------------------------------------ options


def test_log_level_tells_each_run_or_less(declare, lines, caplog):
    loud, quiet = declare(lambda n: None, "loud", log_level=10), declare(fail, "quiet")
    [id] = work_off(loud, (1,))
    starts, ends = lines(logging.DEBUG)
    assert starts.getMessage() == f"task loud {id} starts, attempt 1"
    assert ends.getMessage().startswith(f"task loud {id} succeeded after 0.0")
    work_off(declare(fail, "silent", log_level="CRITICAL"), (1,))
    assert not lines(logging.ERROR, "fsdf.queue.silent")
    work_off(quiet, (1,))
    assert not lines(logging.DEBUG, "fsdf.queue.quiet")


def test_coroutines_are_told_at_debug_too(declare, lines):
    async def coroutine(n): ...

    work_off(declare(coroutine, "async", log_level="DEBUG"), (1,))
    assert len(lines(logging.DEBUG)) == 2


def test_logger_has_the_given_prefix(declare, caplog):
    work_off(declare(fail, "prefixed", logger_prefix="zz平台消费"), (1,))
    names = {record.name for record in caplog.records}
    assert names - {"fsdf.engine"} == {"zz平台消费--Consumer--prefixed"}


def test_traceback_is_left_out_where_it_is_not_wanted(declare, lines):
    work_off(declare(fail, is_print_detail_exception=False), (1,))
    assert [record.exc_info for record in lines(logging.ERROR)] == [None]


def test_messages_are_shown_at_debug_where_it_is_wanted(declare, lines):
    work_off(declare(lambda n: None, "shown", is_show_message_get_from_broker=True), (7,))
    [shown] = lines(logging.DEBUG)
    assert 'fetched from queue shown: {"n":7,' in shown.getMessage()


def test_logger_file_holds_what_the_consumer_tells(declare, tmp_path):
    patch_frame_config(LOG_FOLDER=str(tmp_path / "logs"))
    task = declare(fail, "filed", create_logger_file=True, logger_prefix="a/b")
    work_off(task, (1,))
    path = tmp_path / "logs" / "a_b--Consumer--filed.log"
    text = path.read_text()
    assert "ValueError: no 1" in text
    assert "Traceback" in text
    work_off(task, (2,))
    assert path.read_text().count("Traceback") == 2  # one handler, not two


def test_default_is_no_file(declare, tmp_path):
    patch_frame_config(LOG_FOLDER=str(tmp_path / "logs"))
    work_off(declare(fail), (1,))
    assert not (tmp_path / "logs").exists()
