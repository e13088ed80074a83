"""`docs/from_the_old_framework.md` has every parameter, name and broker, and says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import fsdf_engine
from fsdf_engine import BrokerEnum, ConcurrentModeEnum, NotYetSupported, get_publisher, task_deco
from fsdf_engine.config import KEYS
from fsdf_engine.historic import ABSENT, BROKERS, HOMES, LATER
from fsdf_engine.historic.attributes import ATTRIBUTES
from fsdf_engine.historic.options import HISTORIC, NOT_YET
from fsdf_engine.options import resolve_options
from fsdf_engine.registry import brokers

PAGE = Path(__file__).parents[2] / "docs" / "from_the_old_framework.md"
# The parameters of the old decorator and of `get_consumer`, and those that its text tells of.
PARAMETERS = """
    queue_name consuming_function function_timeout concurrent_num threads_num
    specify_concurrent_pool
    specify_threadpool specify_async_loop concurrent_mode max_retry_times log_level
    is_print_detail_exception is_show_message_get_from_broker qps msg_schedule_time_intercal
    is_using_distributed_frequency_control msg_expire_senconds is_send_consumer_hearbeat_to_redis
    logger_prefix create_logger_file do_task_filtering task_filtering_expire_seconds
    is_consuming_function_use_multi_params is_do_not_run_by_specify_time_effect
    do_not_run_by_specify_time schedule_tasks_on_main_thread is_using_rpc_mode broker_kind
    function_result_status_persistance_conf
""".split()


def table(section: str) -> dict[str, tuple[str, ...]]:
    """Return the rows of a section by each name of their first cell."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {name: tuple(row[1:]) for row in rows for name in re.findall(r"`(\w+)`", row[0])}


def test_every_old_parameter_is_told():
    told = table("Parameters")
    assert set(PARAMETERS) <= set(told)
    assert {*HISTORIC, *NOT_YET} - {"is_send_consumer_heartbeat_to_redis"} <= set(told)


@pytest.mark.parametrize("name", [p for p in PARAMETERS if p not in ("queue_name", "broker_kind")])
def test_parameter_is_what_the_page_says(name):
    here = table("Parameters")[name][0]
    if here.startswith("*later*"):
        assert HISTORIC.get(name, name) in NOT_YET
    elif name not in NOT_YET and name != "consuming_function":
        resolve_options({name: None})
        assert here == "the same" or HISTORIC[name] in here


@pytest.mark.parametrize("name", sorted(table("Parameters").keys() - PARAMETERS))
def test_parameter_of_publishers_is_accepted(name):
    get_publisher("page", broker_kind="memory", **{name: None})


def test_every_name_is_told():
    assert {*HOMES, *ABSENT, *(n for names in LATER.values() for n in names)} <= {
        *table("Functions and classes"), "QueueConsumer", "QueuePublisher",
    }  # fmt: skip


@pytest.mark.parametrize("name", table("Functions and classes"))
def test_name_is_what_the_page_says(name):
    here = table("Functions and classes")[name][0]
    if here.startswith("*later*"):
        with pytest.raises(NotYetSupported, match="later version"):
            getattr(fsdf_engine, name)
    elif here == "not here":
        with pytest.raises(ImportError, match="not part of this package"):
            getattr(fsdf_engine, name)
    else:
        assert getattr(fsdf_engine, name) is not None


def test_every_attribute_of_a_task_is_told():
    told = table("A decorated function")
    assert set(ATTRIBUTES) <= set(told)
    task = task_deco("page", broker_kind="memory")(print)
    assert [name for name in told if not hasattr(task, name)] == []


def test_every_broker_is_told_with_its_number():
    told = table("Brokers")
    for member in BrokerEnum:
        if member is BrokerEnum.NATS_JETSTREAM:  # a new one
            continue
        number, here, *_ = told[member.name]
        assert int(number) == member
        if here.startswith("*later*"):
            with pytest.raises(NotYetSupported):
                brokers.name(member)
        else:
            brokers.name(member)


def test_every_mode_is_told_with_its_number():
    told = table("Concurrent modes")
    assert {name: int(row[0]) for name, row in told.items()} == {
        mode.name: int(mode) for mode in ConcurrentModeEnum if mode.name != "PROCESSES"
    }


def test_keys_of_the_page_that_are_the_same_exist():
    for name, row in table("Configuration").items():
        assert (name in KEYS) == row[0].startswith("the same"), name


def test_historic_spellings_stand_in_their_package_only():
    package = Path(fsdf_engine.__file__).parent
    code = {
        path: path.read_text(encoding="utf-8")
        for path in package.rglob("*.py")
        if "historic" not in path.parts
    }
    old = [
        *HISTORIC,
        *ABSENT,
        *(n for table in (LATER, BROKERS) for names in table.values() for n in names),
    ]
    for word in old:
        assert [str(p) for p, text in code.items() if re.search(rf"\b{word}\b", text)] == [], word
