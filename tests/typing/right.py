"""What must type-check."""

from __future__ import annotations

from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from typing_extensions import assert_type

from fsdf_engine import (
    AsyncResult,
    ConsumerHandle,
    Task,
    default_engine,
    get_consumer,
    get_publisher,
    task_deco,
)
from fsdf_engine.result import Results


@task_deco("typed", concurrent_num=3, qps=5, broker_kind="memory")
def add(x: int, y: int = 0, *, note: str = "") -> float:
    return x + y


@task_deco("typed_async", broker_kind="memory")
async def wait(n: int) -> int:
    return n


assert_type(add(1, 2), float)
assert_type(add.push(1, y=2, note="n"), AsyncResult[float])
assert_type(add.delay(1), AsyncResult[float])
assert_type(add.push_many([(1, 2), {"x": 1}]), Results[float])
assert_type(add.push_many((n,) for n in range(3)), Results[float])
assert_type(wait.push_group([(1,), {"n": 2}], add), AsyncResult[float])
assert_type(add.push_group([], then=wait, on_failure=add), AsyncResult[int])
assert_type(add.publish({"x": 1}, countdown=5, priority=9, headers={}), AsyncResult[float])
assert_type(add.send((1,), {"y": 2}, task_id="one"), AsyncResult[float])
assert_type(add.push_in(object(), 1, y=2), str)
assert_type(add.publish_in(object(), {"x": 1}, countdown=5), str)
assert_type(add.push(1).get(timeout=5), float)
assert_type(add.push(1).result, float)
assert_type(add.push(1).task_id, str)
assert_type(add.consume(), ConsumerHandle)


async def use() -> None:
    assert_type(await add.apush(1), AsyncResult[float])
    assert_type(await add.apush_in(object(), 1), str)
    assert_type(await add.apublish_in(object(), {"x": 1}), str)
    assert_type(await add.push(1), float)
    assert_type(await add.push(1).aget(5), float)
    assert_type(await wait(1), int)
    assert_type(wait.push(1), AsyncResult[int])
    assert_type(wait.push_many([(1,)]), Results[int])
    assert_type(wait.push(1).get(), int)
    assert_type(await (await wait.apush(1)), int)


def plain(x: int) -> int:
    return x


task: Task[..., float] = add
waiting: Task[[int], Coroutine[Any, Any, int], int] = wait
found: AsyncResult[float] = add.push(1)
anything: AsyncResult = default_engine().result("id")  # of no known type


@task_deco("typed_3", retry_on=OSError, never_retry_on=(FileNotFoundError, PermissionError))
def retried() -> None: ...


@task_deco("typed_4", specify_concurrent_pool=ThreadPoolExecutor(2), ack="early")
def pooled() -> None: ...


@task_deco("typed_5", specify_concurrent_pool=default_engine().new_pool("threads", 2))
def shared() -> None: ...


class Mailer:
    @staticmethod
    @task_deco("typed_6")
    def send(to: str) -> int:
        return len(to)


assert_type(Mailer.send.push("you"), AsyncResult[int])
with get_publisher("typed", broker_kind="memory") as publisher:
    assert_type(publisher.push(x=1), AsyncResult[Any])
    assert_type(publisher.publish({"x": 1}, task_id="one", eta=1.5), AsyncResult[Any])
    assert_type(publisher.size().waiting, int)
get_consumer("typed_2", consuming_function=plain, broker_kind="memory").consume()
