"""Options: wrong ones are errors at declaration that say what to do."""

from __future__ import annotations

import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import timedelta
from fractions import Fraction

import pytest
from helpers import BOUND

from fsdf_engine import ConfigurationError, NotYetSupported, ShrinkablePool, task_deco
from fsdf_engine.core.retry import RetryPolicy
from fsdf_engine.options import resolve_options
from fsdf_engine.pools.threads import ThreadPool


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concurent_num": 3}, "did you mean 'concurrent_num'"),
        ({"qps": -1}, "out of range"),
        ({"qps": "5"}, "not a number"),
        ({"qps": float("nan")}, "not a number"),
        ({"qps": float("inf")}, "out of range"),
        ({"lease": 10**400}, "lease=.* at most 86400"),
        ({"retry_backoff": 1e300}, "retry_backoff=.* at most 1e.14"),
        ({"concurrent_num": 10**400}, "concurrent_num=.* at most 1e.14"),
        ({"concurrent_num": 0}, "at least 1"),
        ({"concurrent_num": 2.5}, "whole number"),
        ({"concurrent_num": True}, "whole number"),
        ({"is_using_rpc_mode": 1}, "True or False"),
        ({"timeout_kill": "maybe"}, "raise, never"),
        ({"priority": 10}, "at most 9"),
        ({"priority": -10}, "at least -9"),
        ({"retry_on": "ValueError"}, "exception classes"),
        ({"log_level": "LOUD"}, "give 10"),
        ({"log_level": True}, "give 10"),
        ({"create_logger_file": 1}, "True or False"),
        ({"name": 5}, "name=5 is no text"),
        ({"broker_url": 5}, "broker_url=5 is no text"),
        ({"result_url": 5}, "result_url=5 is no text"),
        ({"result_store": ["a"]}, r"result_store=\['a'\] is no text"),
        ({"result_store": "reddis"}, "unknown result store 'reddis'; did you mean 'redis'"),
        ({"result_store": "mongo"}, "store 'mongo'; there are memory, redis, sqlalchemy, sqlite"),
        ({"specify_retry_policy": 5}, "specify_retry_policy=5 is no RetryPolicy"),
        ({"specify_retry_policy": RetryPolicy}, "is no RetryPolicy; give an instance"),
    ],
)
def test_wrong_option_is_refused(options, said):
    with pytest.raises(ConfigurationError, match=said):
        task_deco("q", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"do_task_filtering": True},
        {"is_using_distributed_frequency_control": True},
        {"is_do_not_run_by_specify_time_effect": True},
        {"function_result_status_persistance_conf": object()},
    ],
)
def test_option_of_a_later_version_is_refused_and_never_ignored(options):
    with pytest.raises(NotYetSupported, match="leave it out"):
        task_deco("q", **options)
    off = {key: False if value is True else None for key, value in options.items()}
    resolve_options(off)


@pytest.mark.parametrize("pool", [5, "threads", list, object(), ThreadPoolExecutor, ThreadPool])
def test_pool_that_is_none_is_refused_at_the_declaration(pool):
    with pytest.raises(ConfigurationError, match="is no pool; give one of"):
        task_deco("q", specify_concurrent_pool=pool)


def test_executor_of_other_processes_is_refused_at_the_declaration():
    class Own(ProcessPoolExecutor):
        pass

    with pytest.raises(ConfigurationError, match=r"use concurrent_mode=.*PROCESSES"):
        task_deco("q", specify_concurrent_pool=Own(1))


@pytest.mark.parametrize("make", [ThreadPoolExecutor, ShrinkablePool, ThreadPool])
def test_queues_share_a_pool_that_is_given(make):
    pool, names = make(2), set()

    def run(n):
        names.add(threading.current_thread().name.partition("_")[0])
        return n

    options = {"broker_kind": "memory", "is_using_rpc_mode": True, "specify_concurrent_pool": pool}
    tasks = [task_deco(f"share_{n}", **options)(run) for n in range(2)]
    handles = [task.consume() for task in tasks]
    assert [tasks[n % 2].push(n).get(BOUND) for n in range(20)] == list(range(20))
    assert handles[0].pool is handles[1].pool
    assert handles[0].pool.size == 2
    assert len(names) == 1
    for handle in handles:
        handle.stop()
    pool.close(BOUND) if make is ThreadPool else pool.shutdown()


def test_given_pool_that_cannot_run_the_function_is_refused_at_the_declaration():
    for pool in (ThreadPoolExecutor(1), ThreadPool(1)):
        with pytest.raises(ConfigurationError, match="cannot run"):

            @task_deco("misfit", broker_kind="memory", specify_concurrent_pool=pool)
            async def coroutine():
                pass


def test_historic_spellings_are_understood():
    options = resolve_options({"msg_expire_senconds": 5, "msg_schedule_time_intercal": 0.2})
    assert (options.msg_expire_seconds, options.qps) == (5, 5.0)
    assert resolve_options({"msg_schedule_time_intercal": 0.2, "qps": 5}).qps == 5


def test_qps_raises_the_default_concurrency_only():
    assert resolve_options({"qps": 5}).concurrent_num == 500
    assert resolve_options({"qps": 5, "concurrent_num": 3}).concurrent_num == 3


def test_broker_and_mode_are_checked_at_declaration():
    with pytest.raises(ConfigurationError, match="redis"):
        task_deco("q", broker_kind="redsi")(lambda: None)
    with pytest.raises(ConfigurationError, match="not in this version"):
        task_deco("q", broker_kind=8)(lambda: None)
    with pytest.raises(ConfigurationError, match="threads"):
        task_deco("q", concurrent_mode="thread")(lambda: None)


@pytest.mark.parametrize(
    "value", [float("inf"), 2.5, timedelta(1), ["a"], {"a": 1}, object(), Fraction(1, 3), b"redis"]
)
def test_what_can_name_no_broker_and_no_mode_is_refused_at_the_declaration(value):
    for option, said in (("broker_kind", "broker"), ("concurrent_mode", "concurrent mode")):
        with pytest.raises(ConfigurationError) as told:
            task_deco("q", **{option: value})(lambda: None)
        assert str(told.value).startswith(f"unknown {said} {value!r}; ")


def test_refused_url_shows_no_password():
    with pytest.raises(ConfigurationError, match="broker_url=") as told:
        task_deco("q", broker_url=b"redis://me:secret@there/0")
    assert "secret" not in str(told.value)


def test_decorator_without_a_queue_says_so():
    with pytest.raises(ConfigurationError, match="give the queue a name"):
        task_deco(lambda: None)


def test_two_unnamed_tasks_on_one_queue_are_refused():
    @task_deco("two", broker_kind="memory")
    def one():
        pass

    with pytest.raises(ConfigurationError, match="name="):

        @task_deco("two", broker_kind="memory")
        def two():
            pass


def test_the_same_function_may_be_declared_again():
    for _ in range(2):

        @task_deco("again", broker_kind="memory")
        def again():
            pass


@pytest.mark.parametrize("use", ["consume", "push"])
def test_a_store_in_the_settings_that_is_none_is_told_before_anything_runs(monkeypatch, use):
    monkeypatch.setenv("FSDF_RESULT_STORE", "mongo")
    task = task_deco("q", broker_kind="memory", is_using_rpc_mode=True)(lambda: None)
    with pytest.raises(ConfigurationError, match="FSDF_RESULT_STORE.*there are memory, redis"):
        getattr(task, use)()
    assert task.size() == (0, 0, 0, 0)
