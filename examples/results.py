"""A result travels back: push here, run there, read it here."""

from fsdf_engine import TaskFailed, task_deco


@task_deco("results_example", is_using_rpc_mode=True, max_retry_times=0)
def divide(a: float, b: float) -> float:
    return a / b


if __name__ == "__main__":
    consumer = divide.consume()
    print(divide.push(1, 4).get(timeout=10))
    try:
        divide.push(1, 0).get(timeout=10)
    except TaskFailed as error:
        print(error.kind, "caused by", repr(error.__cause__))
    consumer.stop()
