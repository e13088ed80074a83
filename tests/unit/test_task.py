"""Tasks: transparent functions, clear errors at push, results, configuration."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import sys
import threading
from datetime import datetime, timedelta, timezone

import pytest
from helpers import BOUND, until

from fsdf_engine import (
    ArgumentError,
    BrokerEnum,
    ConcurrentModeEnum,
    ConfigurationError,
    FsdfError,
    ResultDeadlock,
    ResultError,
    ResultTimeout,
    ServerRefused,
    TaskFailed,
    Unavailable,
    current,
    default_engine,
    get_consumer,
    get_publisher,
    patch_frame_config,
    task_deco,
)

MEMORY = {"broker_kind": BrokerEnum.LOCAL_PYTHON_QUEUE}


@task_deco("module_level", **MEMORY)
def module_level(a: int, b: int = 2, *, c: int = 3) -> int:
    """Add them."""
    return a + b + c


def test_task_is_as_transparent_as_its_function():
    assert module_level(1) == 6
    assert module_level.__name__ == "module_level"
    assert module_level.__doc__ == "Add them."
    assert (
        str(inspect.signature(module_level)) == "(a: 'int', b: 'int' = 2, *, c: 'int' = 3) -> 'int'"
    )
    assert inspect.unwrap(module_level) is module_level.fn
    assert pickle.loads(pickle.dumps(module_level)) is module_level

    @task_deco("coroutine", **MEMORY)
    async def coroutine():
        return 1

    assert inspect.iscoroutinefunction(coroutine)
    assert asyncio.run(coroutine()) == 1


def test_queue_that_is_state_of_another_is_refused_at_the_declaration():
    for declare in (
        lambda name: task_deco(name, broker_kind="redis_ack")(lambda x: None),
        lambda name: get_publisher(name, broker_kind="redis_stream"),
    ):
        for name in ("{q}:again", "{q}:s:5", "fsdf:result:1", ""):
            with pytest.raises(ConfigurationError, match="queue"):
                declare(name)
        declare("q")


def test_task_in_a_class_is_called_as_a_method():
    class Adder:
        base = 10

        @task_deco("method", **MEMORY)
        def method(self, n):
            return self.base + n

        @staticmethod
        @task_deco("static", **MEMORY)
        def static(n):
            return n

    assert Adder().method(1) == 11
    assert Adder.static(2) == 2
    Adder.static.push(3)
    assert Adder.static.get_message_count() == 1


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "'a'"),
        ((1, 2, 3), {}, "too many"),
        ((1,), {"x": 1}, "'x'"),
        ((object(),), {}, "'a'"),
    ],
)
def test_wrong_arguments_fail_at_push_and_queue_nothing(args, kwargs, said):
    task = module_level_again()
    with pytest.raises(ArgumentError, match=said):
        task.push(*args, **kwargs)
    assert task.get_message_count() == 0


def module_level_again():
    return task_deco("again", **MEMORY)(module_level.fn)


def test_publish_takes_mappings_and_json_and_refuses_the_rest():
    task = module_level_again()
    task.publish({"a": 1})
    task.pub('{"a": 1, "b": 4}')
    for wrong in ("nonsense", "[1]", 3):
        with pytest.raises(ArgumentError):
            task.publish(wrong)
    with pytest.raises(ArgumentError, match="tuples or mappings"):
        task.push_many([5])
    assert task.get_message_count() == 2
    assert task.clear() == 2
    with pytest.raises(ConfigurationError, match="no part 'all'"):
        task.clear(["all"])


@pytest.mark.parametrize(
    "control",
    [
        {"countdown": -1}, {"countdown": datetime(2030, 1, 1)}, {"countdown": timedelta(-1)},
        {"eta": "soon"}, {"eta": timedelta(1)}, {"eta": True}, {"eta": datetime(1, 1, 1)},
        {"countdown": float("nan")}, {"countdown": 10**400}, {"eta": float("nan")}, {"eta": 1e300},
        {"expires": float("inf")}, {"expires": timedelta(1)}, {"expires": 10**400},
        {"function_timeout": float("nan")}, {"function_timeout": -1}, {"soft_time_limit": 10**400},
        {"priority": 10},
    ],
    ids=lambda control: str(control)[:40],
)  # fmt: skip
def test_wrong_control_of_one_call_is_refused(control):
    task = module_level_again()
    with pytest.raises(ArgumentError, match=next(iter(control))):
        task.publish({"a": 1}, **control)
    assert task.size() == (0, 0, 0, 0)


@pytest.mark.parametrize("publish", ["publish", "apply_async", "send"])
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("countdwn", "; did you mean 'countdown'?"),
        ("time_limit", "; did you mean 'soft_time_limit'?"),
        ("delay", "; there are countdown, eta, expires,"),
        ("write", "; there are"),
        ("now", "; there are"),
    ],
)
def test_unknown_option_of_one_call_is_named_with_the_nearest_and_where_all_stand(
    publish, name, hint
):
    task = module_level_again()
    given = ((1,), {}) if publish == "send" else ({"a": 1},)
    for one in (task, *([] if publish == "send" else [task.publisher])):
        with pytest.raises(ArgumentError) as caught:
            getattr(one, publish)(*given, **{name: 1})
        assert str(caught.value).startswith(f"unknown option {name!r} of one call{hint}")
        assert "fsdf_engine.call.Control" in str(caught.value)
    assert task.size() == (0, 0, 0, 0)


def test_arguments_given_as_options_of_one_call_are_no_options():
    with pytest.raises(ArgumentError, match="unknown option 'args' of one call"):
        module_level_again().publish({}, args=(1,))


def test_times_of_one_call_may_be_what_the_standard_library_has():
    sent = []
    task = module_level_again()
    publish = default_engine().publisher(task._broker()).broker.publish

    def note(batch):
        sent.extend(batch)
        publish(batch)

    default_engine().publisher(task._broker()).broker.publish = note
    instant = 4_000_000_000.5
    aware = datetime.fromtimestamp(instant, timezone(timedelta(hours=9)))
    for when in (instant, aware, datetime.fromtimestamp(instant)):  # the last is local time
        task.publish({"a": 1}, eta=when, expires=when)
    task.publish({"a": 1}, countdown=timedelta(minutes=2))
    assert [out.not_before for out in sent] == [instant] * 3 + [0.0]
    assert [json.loads(out.body)["extra"].get("expires") for out in sent] == [instant] * 3 + [None]
    assert [out.delay for out in sent] == [0.0] * 3 + [120.0]


def test_get_consumer_and_get_publisher_work_without_a_decorator():
    ran = []
    consumer = get_consumer("plain", consuming_function=lambda a, b=0: ran.append((a, b)), **MEMORY)
    with get_publisher("plain", **MEMORY) as publisher:
        publisher.push(a=1, b=2)
        publisher.publish('{"a": 3}')
        assert publisher.get_message_count() == 2
    assert consumer.publisher_of_same_queue.publish({"a": 5})
    consumer.start_consuming_message()
    until(lambda: sorted(ran) == [(1, 2), (3, 0), (5, 0)])


def test_publisher_without_a_function_gives_results_and_takes_what_a_message_takes():
    options = {"is_using_rpc_mode": True, "max_retry_times": 0, **MEMORY}
    consumer = get_consumer("answered", consuming_function=lambda a, self=0: [a, self], **options)
    with get_publisher("answered", **options) as publisher:
        result = publisher.push(a=1, self=2)
        named = publisher.publish({"a": 3}, task_id="mine", priority=9, headers={"of": "me"})
        late = publisher.publish({"a": 4}, countdown=BOUND)
        old = publisher.publish({"a": 5}, expires=1.0)
        assert publisher.size() == (3, 1, 0, 0)
        for priority in (10, -10, 3.0, True):
            with pytest.raises(ArgumentError, match="whole number from -9 to 9"):
                publisher.publish({"a": 1}, priority=priority)
        consumer.start_consuming_message()
        assert (result.get(BOUND), named.get(BOUND)) == ([1, 2], [3, 0])
        assert (str(named), named.task_id, late.status) == ("mine", "mine", "pending")
        with pytest.raises(TaskFailed, match="expired"):
            old.get(BOUND)


def test_a_bare_message_may_name_no_task_and_extra_may_name_one():
    ran = []
    for name in ("one", "two"):
        task_deco("named", name=name, **MEMORY)(
            (lambda name: lambda n: ran.append((name, current.task)))(name)
        )
    publisher = get_publisher("named", **MEMORY)
    publisher.publish({"n": 1, "extra": {"task": "two"}})
    task = default_engine().find("named", "one")
    task.push(1)
    task.consume()
    until(lambda: task.size()[:3] == (0, 0, 0))
    assert ran == [("one", "one")], "a mapping given to publish is arguments, never control data"


def test_results_off_says_what_to_declare():
    task = module_level_again()
    with pytest.raises(ResultError, match="is_using_rpc_mode=True"):
        task.push(1).get()


def test_result_timeout_and_status_before_the_end():
    task = task_deco("slow", is_using_rpc_mode=True, **MEMORY)(lambda n: n)
    result = task.push(1)
    assert (result.status, result.ready(), result.info) == ("pending", False, {})
    with pytest.raises(ResultTimeout, match="within 0.01 s"):
        result.get(0.01)
    task.consume()
    assert result.get(BOUND) == 1
    assert result.status == "succeeded"
    assert default_engine().result(result.task_id, task.options).get(BOUND) == 1
    result.forget()


def test_results_can_be_awaited():
    task = task_deco("awaited", is_using_rpc_mode=True, **MEMORY)(lambda n: 1 / n)
    task.consume()

    async def use():
        results = [await task.apush(n) for n in (1, 2, 4)]
        values = await asyncio.gather(*results)
        with pytest.raises(TaskFailed, match="ZeroDivisionError"):
            await (await task.apush(0))
        with pytest.raises(ResultTimeout):
            await default_engine().result("nobody", task.options).aget(0.01)
        return values

    assert asyncio.run(use()) == [1.0, 0.5, 0.25]


def test_waiting_on_the_same_full_pool_is_refused_and_not_hung():
    options = {"is_using_rpc_mode": True, "concurrent_num": 2, "max_retry_times": 0, **MEMORY}

    @task_deco("deadlock", **options)
    def outer(depth):
        return outer.push(depth - 1).get(BOUND) if depth else "bottom"

    outer.consume()
    assert outer.push(1).get(BOUND) == "bottom"
    with pytest.raises(TaskFailed) as failed:
        outer.push(5).get(BOUND)
    assert "ResultDeadlock" in str(failed.value)
    assert issubclass(ResultDeadlock, ResultError)


def test_waiting_for_what_another_queue_produces_is_no_deadlock():
    options = {"is_using_rpc_mode": True, "concurrent_num": 1, "max_retry_times": 0, **MEMORY}
    inner = task_deco("produces", **options)(lambda n: 2 * n)

    @task_deco("waits", **options)
    def outer(n):
        return inner.push(n).get(BOUND)

    inner.consume()
    outer.consume()
    assert outer.push(4).get(BOUND) == 8


def test_a_broker_that_is_configured_after_the_declaration_is_the_one_that_is_used():
    task = task_deco("late", is_using_rpc_mode=True)(lambda n: n + 1)
    patch_frame_config(BROKER_KIND="memory")
    task.consume()
    assert task.push(1).get(BOUND) == 2


def test_a_consumer_that_cannot_start_leaves_no_thread():
    def work(n):
        return n

    first = task_deco("torn", name="a", is_using_rpc_mode=True, result_store="memory", **MEMORY)
    second = task_deco("torn", name="b", is_using_rpc_mode=True, result_store="sqlite", **MEMORY)
    task, _ = first(work), second(lambda n: n)
    before = threading.active_count()
    with pytest.raises(ConfigurationError, match="differ in their result store"):
        task.consume()
    assert threading.active_count() == before


@pytest.mark.parametrize("id", [5, "", b"x"])
def test_an_id_that_is_no_text_is_refused(id):
    task = task_deco("ids", **MEMORY)(lambda n: n)
    with pytest.raises(ArgumentError, match="task_id"):
        task.publish({"n": 1}, task_id=id)


def test_a_listener_that_exits_harms_nobody():
    task = task_deco("heard", is_using_rpc_mode=True, **MEMORY)(lambda n: n)
    default_engine().listeners.add("run_ended", lambda job, outcome: sys.exit())
    task.consume()
    assert [task.push(n).get(BOUND) for n in range(3)] == [0, 1, 2]
    assert task.join(BOUND)


def test_current_outside_a_run_says_so():
    assert not current
    with pytest.raises(FsdfError, match="inside a task only"):
        print(current.task_id)


def test_follow_up_ids_are_derived_from_the_parent():
    ids = []
    second = task_deco("derived_2", **MEMORY)(lambda n: None)
    first = task_deco("derived_1", **MEMORY)(lambda n: ids.append(second.push(n).task_id))
    first.publish({"n": 1}, task_id="parent")
    first.publish({"n": 1}, task_id="parent")
    first.publish({"n": 1}, task_id="other")
    first.consume()
    assert first.join(BOUND)
    assert len(ids) == 3
    assert len(set(ids)) == 2


@pytest.mark.parametrize(
    ("mode", "fn"),
    [
        (ConcurrentModeEnum.THREADING, "async def f(): pass"),
        (ConcurrentModeEnum.ASYNC, "def f(): pass"),
    ],
)
def test_function_and_mode_that_do_not_fit_are_refused_at_the_declaration(mode, fn):
    scope = {}
    exec(fn, scope)
    with pytest.raises(ConfigurationError, match=r"cannot run; use .*ConcurrentModeEnum\."):
        task_deco("misfit", concurrent_mode=mode, **MEMORY)(scope["f"])
    assert default_engine().tasks() == []


@pytest.mark.parametrize("mode", ["gevent", "eventlet"])
def test_green_modes_without_patching_say_which_line_to_add(mode):
    task = task_deco("green", concurrent_mode=mode, **MEMORY)(lambda: None)
    with pytest.raises(ConfigurationError, match=r"monkey.*patch"):
        task.consume()


@pytest.mark.parametrize("kind", ["redis", "redis_ack", "redis_stream", "redis_brpoplpush"])
def test_an_outage_at_the_start_of_a_consumer_is_told_once(kind, caplog):
    from helpers import free_port

    place = f"127.0.0.1:{free_port()}"
    task = task_deco("absent", broker_kind=kind, broker_url=f"redis://{place}/0")(lambda: None)
    consumer = task.consume().consumer
    until(lambda: consumer._outage.failures > 1)
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [place in text for text in warnings] == [True]


def test_unreachable_and_refusing_servers_are_clear_errors(own_redis):
    from helpers import free_port

    task = task_deco("unreachable", broker_kind="redis_ack", broker_url=f"redis://127.0.0.1:{free_port()}/0")(
        lambda: None
    )  # fmt: skip
    with pytest.raises(Unavailable, match="127.0.0.1"):
        task.push()
    server = own_redis(password="sesame")
    url = server.url.replace("sesame", "wrong")
    refused = task_deco("refused", broker_kind="redis_ack", broker_url=url)(lambda: None)
    with pytest.raises(ServerRefused) as error:
        refused.push()
    assert "wrong" not in str(error.value).replace("wrong password", "")
    with pytest.raises(ServerRefused):
        refused.consume()


def test_a_consumer_waits_for_a_server_that_comes_later(own_redis):
    server, ran = own_redis(), []
    server.stop()
    task = task_deco("late_server", broker_kind="redis_ack", broker_url=server.url)(ran.append)
    task.consume()
    server.start()
    task.push(1)
    until(lambda: ran == [1])


def test_configuration_chooses_the_broker():
    patch_frame_config(BROKER_KIND="memory")
    task = task_deco("by_configuration")(lambda: None)
    task.push()
    assert type(default_engine().broker_of(task.options)).__name__ == "MemoryBroker"


def test_concurrent_pushes_share_flushes():
    task, flushes = module_level_again(), []
    broker = default_engine().broker_of(task.options)
    publish = broker.publish
    gate = threading.Event()

    def slow(batch):
        flushes.append(len(batch))
        gate.wait(BOUND) if len(flushes) == 1 else None
        publish(batch)

    broker.publish = slow
    threads = [threading.Thread(target=task.push, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    publisher = default_engine().publisher(broker)
    until(lambda: len(publisher._waiting) == 19)
    gate.set()
    for thread in threads:
        thread.join()
    assert flushes == [1, 19]
    assert task.get_message_count() == 20


def test_tasks_declared_while_their_queue_runs_are_whole_members():
    one = task_deco("late", name="one", **MEMORY)(lambda n: n)
    one.consume()
    options = {"name": "two", "is_using_rpc_mode": True, "msg_expire_seconds": 5.0, **MEMORY}
    two = task_deco("late", **options)(lambda n: n)
    assert two.push(2).get(BOUND) == 2
    old = two.publish({"n": 3}, expires=1.0)
    with pytest.raises(TaskFailed, match="expired"):
        old.get(BOUND)
    with pytest.raises(ConfigurationError, match="cannot run"):

        @task_deco("late", name="three", concurrent_mode="threads", **MEMORY)
        async def three(n):
            return n


def test_tasks_of_one_queue_must_agree_on_its_rate():
    one = task_deco("rates", name="one", qps=5, **MEMORY)(lambda n: n)
    task_deco("rates", name="two", qps=6, **MEMORY)(lambda n: n)
    with pytest.raises(ConfigurationError, match="differ in qps"):
        one.consume()
