"""CPU-bound work in child processes; a run that passes its limit is killed, C code too."""

from fsdf_engine import ConcurrentModeEnum, TaskFailed, task_deco


@task_deco(
    "processes_example",
    concurrent_mode=ConcurrentModeEnum.PROCESSES,
    concurrent_num=2,
    function_timeout=2,
    is_using_rpc_mode=True,
)
def count(n: int) -> int:
    return sum(range(n))


if __name__ == "__main__":
    consumer = count.consume()
    results = count.push_many([(1_000,), (10**12,), (2_000,)])
    for result in results:
        try:
            print(result.get(timeout=30))
        except TaskFailed as error:
            print(error.status)
    consumer.stop()
