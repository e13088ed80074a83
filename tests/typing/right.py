"""What must type-check."""

from __future__ import annotations

from typing_extensions import assert_type

from fsdf_engine import AsyncResult, ConsumerHandle, Task, get_consumer, task_deco


@task_deco("typed", concurrent_num=3, qps=5, broker_kind="memory")
def add(x: int, y: int = 0, *, note: str = "") -> float:
    return x + y


@task_deco("typed_async", broker_kind="memory")
async def wait(n: int) -> int:
    return n


assert_type(add(1, 2), float)
assert_type(add.push(1, y=2, note="n"), AsyncResult)
assert_type(add.delay(1), AsyncResult)
assert_type(add.push_many([(1, 2), {"x": 1}]), list[AsyncResult])
assert_type(add.consume(), ConsumerHandle)


async def use() -> None:
    assert_type(await add.apush(1), AsyncResult)
    assert_type(await wait(1), int)


def plain(x: int) -> int:
    return x


task: Task[..., float] = add
get_consumer("typed_2", consuming_function=plain, broker_kind="memory").consume()
