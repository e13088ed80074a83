"""Consumers in child processes, told by the parameters that made them."""

from __future__ import annotations

import pytest

from fsdf_engine import (
    ConfigurationError,
    consumer_init_params_include_consuming_function,
    default_engine,
    get_consumer,
    get_publisher,
    run_many_consumer_with_multi_process,
    task_deco,
)

MADE_UNDER_MAIN = """
from fsdf_engine import get_consumer, run_many_consumer_with_multi_process, task_deco

@task_deco("processes_f", concurrent_num=2)
def f(n):
    print("f", n, flush=True)

def g(n):
    print("g", n, flush=True)

if __name__ == "__main__":
    consumer = get_consumer("processes_g", consuming_function=g, qps=50)
    f.push(1)
    consumer.publisher_of_same_queue.push(2)
    run_many_consumer_with_multi_process([f.consumer.init_params, consumer.init_params], 2)
"""
WHOLE_BODY = """
from fsdf_engine import task_deco

@task_deco("whole", is_consuming_function_use_multi_params=False, concurrent_mode="processes",
           concurrent_num=1)
def f(body):
    print("body", body["n"], flush=True)

if __name__ == "__main__":
    f.push({"n": 3})
    f.consume()
"""
HERE = """
from fsdf_engine import get_consumer, run_many_consumer_by_init_params

def f(n):
    print("f", n, flush=True)

consumers = [get_consumer(f"here_{n}", consuming_function=f) for n in range(2)]
for n, consumer in enumerate(consumers):
    consumer.publisher_of_same_queue.push(n)
run_many_consumer_by_init_params([consumer.init_params for consumer in consumers])
"""


def test_consumers_that_only_the_main_script_made_run_in_children(run):
    program = run("", code=MADE_UNDER_MAIN)
    program.until("f 1")
    program.until("g 2")
    program.end()


def test_function_of_one_dict_runs_in_child_processes(run):
    program = run("", code=WHOLE_BODY)
    program.until("body 3")
    program.end()


def test_several_consumers_here_block_until_a_signal(run):
    program = run("", code=HERE)
    program.until("f 0")
    program.until("f 1")
    program.end()


def f(n):
    pass


def test_what_cannot_be_given_to_a_child_is_refused_here():
    broker = {"broker_kind": "sqlite"}
    local = get_consumer("local", consuming_function=lambda n: n, **broker)
    with pytest.raises(ConfigurationError, match="consuming_function=.*top level"):
        run_many_consumer_with_multi_process([local.init_params], 1)
    pool = default_engine().new_pool("threads", 2)
    pooled = get_consumer("pooled", consuming_function=f, specify_concurrent_pool=pool, **broker)
    with pytest.raises(ConfigurationError, match="specify_concurrent_pool=.*leave pools"):
        pooled.multi_process_consume(1)
    with pytest.raises(ConfigurationError, match="at least one"):
        run_many_consumer_with_multi_process([], 1)
    with pytest.raises(ConfigurationError, match="is no task"):
        consumer_init_params_include_consuming_function(f)


def test_parameters_with_the_function_make_the_same_task():
    task = task_deco("parameters", qps=2, broker_kind="memory")(f)
    params = consumer_init_params_include_consuming_function(task)
    assert get_consumer(**params).task is task
    assert get_publisher("parameters", broker_kind="memory").get_message_count() == 0
