"""The forms in which old code declares, pushes and consumes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from datetime import datetime, timedelta

import pytest
import redis
from helpers import BOUND, until

import fsdf_engine
from fsdf_engine import (
    ArgumentError,
    AsyncResult,
    BrokerEnum,
    ConfigurationError,
    NotYetSupported,
    default_engine,
    get_consumer,
    get_publisher,
    patch_frame_config,
    task_deco,
)
from fsdf_engine.historic import BROKERS, HOMES, LATER, options
from fsdf_engine.options import resolve_options

MEMORY = {"broker_kind": BrokerEnum.LOCAL_PYTHON_QUEUE}
RPC = {**MEMORY, "is_using_rpc_mode": True}
CLASSES = [
    (broker, name) for broker, names in BROKERS.items() for name in names if "Consumer" in name
]


def old(name):
    return getattr(fsdf_engine, name)


# ------------------------------------------------------------------ classes and functions


@pytest.mark.parametrize(("broker", "name"), [*CLASSES, ("REDIS", "RedisConsmer")])
def test_class_form_consumes_its_brokers_queue(
    broker, name, redis_url, rabbitmq_url, tmp_path, monkeypatch
):
    monkeypatch.setenv("FSDF_REDIS_URL", redis_url)
    monkeypatch.setenv("FSDF_RABBITMQ_URL", rabbitmq_url)
    monkeypatch.setenv("FSDF_SQLACHEMY_ENGINE_URL", f"sqlite:///{tmp_path}/q.sqlite")
    ran = []
    consumer = old(name)("forms", consuming_function=lambda x: ran.append(x), concurrent_num=2)
    assert isinstance(consumer, old("AbstractConsumer"))
    assert consumer.task.options.broker_kind == BrokerEnum[broker]
    consumer.publisher_of_same_queue.push(1)
    consumer.publisher_of_same_queue.publish({"x": 2})
    assert consumer.publisher_of_same_queue.get_message_count() == 2
    consumer.start_consuming_message()
    until(lambda: sorted(ran) == [1, 2])


@pytest.mark.parametrize("name", [n for names in BROKERS.values() for n in names if "Pub" in n])
def test_publisher_class_publishes_to_its_broker(
    name, redis_url, rabbitmq_url, tmp_path, monkeypatch
):
    monkeypatch.setenv("FSDF_REDIS_URL", redis_url)
    monkeypatch.setenv("FSDF_RABBITMQ_URL", rabbitmq_url)
    monkeypatch.setenv("FSDF_SQLACHEMY_ENGINE_URL", f"sqlite:///{tmp_path}/q.sqlite")
    with old(name)("forms") as publisher:
        publisher.push(x=1)
        assert default_engine().broker(publisher.broker_kind).size("forms").waiting == 1


def test_class_of_one_broker_refuses_another_one():
    with pytest.raises(ConfigurationError, match="this class is for REDIS"):
        old("RedisConsumer")("forms", consuming_function=print, broker_kind=6)
    old("RedisPublisher")("forms", broker_kind=2)


def test_publisher_returns_results_and_takes_control():
    consumer = get_consumer("results", consuming_function=lambda x: 2 * x, **RPC)
    consumer.start_consuming_message()
    publisher = get_publisher("results", **RPC)
    result = publisher.publish({"x": 4}, task_id="mine", priority=3)
    get_publisher("odd_name", **MEMORY).push(self=1, message=2)
    assert (result.get(BOUND), str(result)) == (8, "mine")
    assert publisher.push(x=5).result == 10
    publisher.publish({"x": 4}, countdown=60)
    assert [result.get(BOUND) for result in publisher.push_many([{"x": 1}, {"x": 2}])] == [2, 4]
    assert publisher.size().delayed == 1


def test_publisher_with_the_function_checks_arguments_and_takes_them_by_position():
    publisher = get_publisher("checked", consuming_function=lambda a, b=0: None, **MEMORY)
    publisher.push(1, 2)
    with pytest.raises(ArgumentError, match="'c'"):
        publisher.publish({"a": 1, "c": 3})
    with pytest.raises(ArgumentError):
        get_consumer(
            "own", consuming_function=lambda a: None, **MEMORY
        ).publisher_of_same_queue.push()
    assert publisher.get_message_count() == 1


def test_publisher_clears_the_queue_first_if_asked():
    get_publisher("cleared", **MEMORY).push(n=1)
    publisher = get_publisher(
        "cleared", log_level_int=10, logger_prefix="", is_add_file_handler=True,
        clear_queue_within_init=True, is_add_publish_time=False, consuming_function=None, **MEMORY,
    )  # fmt: skip
    assert publisher.get_message_count() == 0


def test_consumer_of_a_task_is_the_task():
    @task_deco("decorated", concurrent_num=3, **MEMORY)
    def add(a, b):
        return a + b

    assert add.consumer.task.fn is add.fn
    assert get_consumer(**add.init_params, consuming_function=add).task is add
    again = get_consumer(**add.consumer.init_params).task
    assert (again.fn, again.options) == (add.fn, add.options)
    elsewhere = get_consumer("elsewhere", consuming_function=add, **MEMORY)
    assert (elsewhere.queue_name, elsewhere.task.fn) == ("elsewhere", add.fn)


# ------------------------------------------------------------------ a decorated function


def test_decorated_function_has_its_old_attributes():
    @task_deco("attributes", qps=5, max_retry_times=1, **MEMORY)
    def add(a, b):
        return a + b

    assert add.is_decorated_as_consume_function
    assert add.queue_name == "attributes"
    assert add.init_params == {
        "queue_name": "attributes", "broker_kind": 3, "concurrent_num": 500, "qps": 5,
        "max_retry_times": 1,
    }  # fmt: skip
    add.publisher.push(1, 2)
    add.apply_async({"a": 1, "b": 2})
    add.multi_process_pub_params_list([{"a": 1, "b": 2}] * 3, process_num=2)
    assert add.get_message_count() == add.publisher.get_message_count() == 5
    with pytest.raises(NotYetSupported, match="do_task_filtering"):
        add.clear_filter_tasks()
    add.clear_queue()
    add.consumer.start_consuming_message()
    assert add.wait_for_possible_has_finish_all_tasks(minutes=3)


def test_attribute_of_the_function_itself_goes_before_an_old_one():
    def add(a, b):
        return a + b

    add.consumer = "the user's own"
    task = task_deco("own_attribute", **MEMORY)(add)
    assert task.consumer == "the user's own"
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        task.nothing_of_ours
    assert not hasattr(task, "nothing_of_ours")


def test_message_of_an_old_publisher_runs(redis_url):
    ran = []
    control = {"task_id": "q_result:1", "publish_time": 1.5, "publish_time_format": "1970-01-01"}
    with redis.Redis.from_url(redis_url) as client:
        client.rpush("old", json.dumps({"x": "é", "extra": control}))
    patch_frame_config(REDIS_URL=redis_url)
    get_consumer("old", consuming_function=ran.append, broker_kind=2)
    task = task_deco("old", broker_kind=9)(lambda x: ran.append(x))
    task.consume()
    until(lambda: ran == ["é"])


def test_control_of_one_message_is_given_as_an_object(monkeypatch):
    config = old("PriorityConsumingControlConfig")
    task = task_deco("control", **MEMORY)(lambda n: n)
    task.publish({"n": 1}, priority_control_config=config(countdown=60))
    task.publish({"n": 2}, task_id="mine", priority_control_config=config())
    task.publisher.publish(
        {"n": 3}, priority_control_config=config(eta=datetime.now() + timedelta(hours=1))
    )
    assert task.size()[:2] == (1, 2)
    monkeypatch.setattr("time.time", lambda: 1000.0)
    assert config(function_timeout=3).control()["function_timeout"] == 3
    assert config(msg_expire_senconds=5).control()["expires"] == 1005
    assert config(countdown=7, misfire_grace_time=3).control()["expires"] == 1010
    assert config(msg_expire_senconds=5, misfire_grace_time=9).control()["expires"] == 1005


def test_control_of_one_message_that_cannot_be_is_refused():
    config = old("PriorityConsumingControlConfig")
    with pytest.raises(NotYetSupported, match="max_retry_times=3 for one message"):
        config(max_retry_times=3)
    with pytest.raises(ConfigurationError, match="two different times"):
        config(countdown=1, eta=datetime.now())
    with pytest.raises(ConfigurationError, match="misfire_grace_time=0"):
        config(misfire_grace_time=0)


@pytest.mark.parametrize(
    "name", ["countdown", "function_timeout", "msg_expire_senconds", "misfire_grace_time"]
)
@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1, "5"])
def test_control_of_one_message_names_the_seconds_that_are_none(name, seconds):
    with pytest.raises(ConfigurationError, match=f"{name}=.*give a timedelta, or seconds"):
        old("PriorityConsumingControlConfig")(**{name: seconds})
    with pytest.raises(ArgumentError, match="eta=.*give a datetime"):
        old("PriorityConsumingControlConfig")(eta=seconds)


# ------------------------------------------------------------------ options


def test_function_may_take_the_message_as_one_dict():
    ran = []
    task = task_deco("whole", is_consuming_function_use_multi_params=False, **MEMORY)(ran.append)
    task.push({"a": 1, "extra": 2})
    task.push(a=3)
    task.publish('{"b": 4}')
    task.push_many([{"c": 5}, ({"d": 6},)])
    get_publisher("whole", **MEMORY).push({"e": 7})
    get_publisher("whole", **MEMORY).push(8)  # a dead letter
    task.consume()
    assert task.join(BOUND)
    assert sorted(map(str, ran)) == [
        "{'a': 1, 'extra': 2}", "{'a': 3}", "{'b': 4}", "{'c': 5}", "{'d': 6}",
        "{'e': 7}",
    ]  # fmt: skip


def test_coroutine_function_may_take_the_message_as_one_dict():
    async def first(body):
        return body["n"]

    task = task_deco("whole_async", is_consuming_function_use_multi_params=False, **RPC)(first)
    task.consume()
    assert task.push(n=7).get(BOUND) == 7


@pytest.mark.parametrize("call", [((1,), {}), (({"a": 1}, 2), {}), (({"a": 1},), {"b": 2})])
def test_function_that_takes_one_dict_is_pushed_nothing_else(call):
    task = task_deco("whole", is_consuming_function_use_multi_params=False, **MEMORY)(print)
    with pytest.raises(ArgumentError, match="one dict"):
        task.push(*call[0], **call[1])
    with pytest.raises(ArgumentError, match="no text"):
        task.push({1: 2})


def test_function_that_cannot_take_one_dict_is_refused():
    with pytest.raises(ConfigurationError, match="must take one argument"):
        task_deco("whole", is_consuming_function_use_multi_params=False)(lambda a, b: None)


def test_consume_on_the_main_thread_blocks_until_it_is_stopped():
    started = threading.Event()
    task = task_deco("blocks", schedule_tasks_on_main_thread=True, **MEMORY)(started.set)
    consuming = threading.Thread(target=task.consume)
    consuming.start()
    task.push()
    assert started.wait(BOUND)
    assert consuming.is_alive()
    default_engine().stop()
    consuming.join(BOUND)
    assert not consuming.is_alive()


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"threads_num": 7}, "concurrent_num", 7),
        ({"threads_num": 7, "concurrent_num": 7}, "concurrent_num", 7),
        ({"threads_num": None, "concurrent_num": 9}, "concurrent_num", 9),
        ({"msg_schedule_time_intercal": 0.2, "qps": 5}, "qps", 5.0),
        ({"msg_schedule_time_intercal": 0.2, "qps": 0}, "qps", 5.0),
        ({"msg_schedule_time_intercal": 0}, "qps", 0.0),
        ({"msg_expire_senconds": 5}, "msg_expire_seconds", 5),
    ],
)
def test_old_spelling_means_the_option(given, name, value):
    assert getattr(resolve_options(given), name) == value


def test_two_spellings_of_an_option_with_two_values_are_refused():
    with pytest.raises(ConfigurationError, match="concurrent_num=9 and threads_num=7"):
        resolve_options({"threads_num": 7, "concurrent_num": 9})
    with pytest.raises(ConfigurationError, match=r"qps=5 and msg_schedule_time_intercal=0\.5"):
        resolve_options({"msg_schedule_time_intercal": 0.5, "qps": 5})


@pytest.mark.parametrize(
    ("name", "today"),
    [
        ("is_pending", "ready()"), ("is_success", "status"), ("status_and_result", "info"),
        ("set_timeout", "get(timeout=...)"), ("set_callback", "await result"),
    ],
)  # fmt: skip
def test_what_results_had_is_told_by_todays_word(name, today):
    result = AsyncResult("1", None)
    with pytest.raises(AttributeError, match=f"no attribute '{name}'") as caught:
        getattr(result, name)
    assert today in str(caught.value)
    with pytest.raises(AttributeError) as caught:
        result.something
    assert str(caught.value) == "'AsyncResult' object has no attribute 'something'"


def test_option_that_says_nothing_alone_is_accepted():
    nothing = old("FunctionResultStatusPersistanceConfig")(False, False, 7 * 24 * 3600)
    resolve_options(
        {
            "do_not_run_by_specify_time": ("09:00:00", "18:00:00"),
            "task_filtering_expire_seconds": 1800,
            "function_result_status_persistance_conf": nothing,
        }
    )
    for window in ({"is_do_not_run_by_specify_time_effect": True}, {"do_task_filtering": True}):
        with pytest.raises(NotYetSupported, match=next(iter(window))):
            resolve_options(window)


def test_statuses_are_of_a_later_version_and_results_need_them():
    config = old("FunctionResultStatusPersistanceConfig")
    with pytest.raises(NotYetSupported, match="function_result_status_persistance_conf"):
        resolve_options({"function_result_status_persistance_conf": config(True, True)})
    with pytest.raises(ConfigurationError, match="is_save_status"):
        config(False, True)


def test_every_default_of_the_old_decorator_is_accepted():
    config = old("FunctionResultStatusPersistanceConfig")
    task_deco(
        "defaults", function_timeout=0, concurrent_num=50, specify_concurrent_pool=None,
        specify_async_loop=None, concurrent_mode=1, max_retry_times=3, log_level=10,
        is_print_detail_exception=True, is_show_message_get_from_broker=False, qps=0,
        is_using_distributed_frequency_control=False, msg_expire_senconds=0,
        is_send_consumer_hearbeat_to_redis=False, logger_prefix="", create_logger_file=True,
        do_task_filtering=False, task_filtering_expire_seconds=0,
        is_consuming_function_use_multi_params=True, is_do_not_run_by_specify_time_effect=False,
        do_not_run_by_specify_time=("10:00:00", "22:00:00"), schedule_tasks_on_main_thread=False,
        function_result_status_persistance_conf=config(False, False, 7 * 24 * 3600),
        is_using_rpc_mode=False, broker_kind=3,
    )(print)  # fmt: skip


# ------------------------------------------------------------------ waiting and showing


def test_waiting_for_a_queue_is_exact():
    task = task_deco("waited", **MEMORY)(lambda n: None)
    task.push_many((n,) for n in range(10))
    handle = task.consume()
    wait = old("wait_for_possible_has_finish_all_tasks")
    assert wait("waited", 3, broker_kind=BrokerEnum.LOCAL_PYTHON_QUEUE)
    assert task.size() == (0, 0, 0, 0)
    assert wait("never_declared", minutes=3)
    assert old("wait_for_possible_has_finish_all_tasks_by_conusmer_list")([task.consumer])
    with pytest.raises(ConfigurationError, match=r"call stop\(\)"):
        wait("waited", 3, send_stop_to_broker=1)
    handle.stop()


def test_all_consumers_can_be_shown_and_joined(capsys):
    manager = old("ConsumersManager")
    handle = task_deco("managed", **MEMORY)(print).consume()
    assert list(manager.schedulal_thread_to_be_join) == [handle]
    manager.show_all_consumer_info()
    assert capsys.readouterr().out == "managed: ThreadPool, 0 of 50\n"
    stopping = threading.Thread(target=handle.stop)
    stopping.start()
    manager.join_all_consumer_shedual_task_thread()
    stopping.join(BOUND)
    assert not manager.schedulal_thread_to_be_join


def test_configuration_is_shown_without_passwords(capsys):
    patch_frame_config(REDIS_URL="redis://:secret@127.0.0.1:7000/3")
    old("show_frame_config")()
    shown = capsys.readouterr().out
    assert "127.0.0.1:7000/3" in shown
    assert "patch_frame_config" in shown
    assert "secret" not in shown


# ------------------------------------------------------------------ names


@pytest.mark.parametrize("name", HOMES)
def test_old_name_is_found(name):
    assert old(name) is not None


@pytest.mark.parametrize(
    ("broker", "name"), [(broker, name) for broker, names in LATER.items() for name in names]
)
def test_name_of_a_later_version_says_so_at_import(broker, name):
    with pytest.raises(ImportError, match=f"{name} comes in a later version.*{broker}; there are"):
        exec(f"from fsdf_engine import {name}")
    with pytest.raises(NotYetSupported):
        old(name)


def test_name_that_does_not_come_says_what_there_is():
    with pytest.raises(ImportError, match="use print"):
        exec("from fsdf_engine import nb_print")
    with pytest.raises(ImportError, match="cannot import name 'never_was'"):
        exec("from fsdf_engine import never_was")
    assert not hasattr(fsdf_engine, "never_was")


def test_brokers_of_later_versions_are_the_missing_ones():
    missing = {member.name for member in BrokerEnum} - {"NATS_JETSTREAM"} - set(BROKERS)
    assert set(LATER) == missing
    for broker in LATER:
        with pytest.raises(NotYetSupported, match=f"{broker} is not in this version"):
            task_deco("later", broker_kind=BrokerEnum[broker])(print)


def test_import_loads_nothing_that_is_historic_but_the_tables():
    code = "import sys, fsdf_engine; print(*[m for m in sys.modules if 'historic.' in m])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [options.__name__]
