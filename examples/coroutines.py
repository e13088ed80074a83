"""`async def` functions run on one loop; nothing else to declare."""

import asyncio

from fsdf_engine import current, task_deco


@task_deco("coroutines_example", concurrent_num=100)
async def wait_a_little(n: int) -> None:
    await asyncio.sleep(0.1)
    if n % 25 == 0:
        print(n, current.task_id, id(asyncio.get_running_loop()))


if __name__ == "__main__":
    wait_a_little.push_many((n,) for n in range(200))
    consumer = wait_a_little.consume()
    wait_a_little.join()
    consumer.stop()
