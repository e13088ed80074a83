"""Every line marked `# error: CODE` must be exactly this type error, and no other line one."""

from __future__ import annotations

from fsdf_engine import get_publisher, task_deco


@task_deco("typed", broker_kind="memory")
def add(x: int, y: int = 0) -> int:
    return x + y


@task_deco("typed_async", broker_kind="memory")
async def wait(n: int) -> int:
    return n


add.push("one")  # error: arg-type
add.push()  # error: call-arg
add.push(1, z=2)  # error: call-arg
add.push(1, 2, 3)  # error: call-arg
add("one")  # error: arg-type
text: str = add(1)  # error: assignment
text = add.push(1).get()  # error: assignment
add.psuh(1)  # error: attr-defined
add.push_many([1, 2])  # error: list-item
add.push_many(["ab"])  # error: list-item
add.push_many(7)  # error: arg-type
add.push_group([(1, 2)])  # error: call-arg
add.push_group([(1, 2)], then=len)  # error: arg-type
text = add.push_group([(1, 2)], add).get()  # error: assignment
add.push_in(object(), "one")  # error: arg-type
add.push_in(object())  # error: call-arg
add.publish_in(object(), {"x": 1}, countdonw=5)  # error: call-arg
add.publish(3)  # error: arg-type
add.publish({"x": 1}, countdonw=5)  # error: call-arg
add.publish({"x": 1}, priority="high")  # error: arg-type
get_publisher("typed").publish({"x": 1}, delay=5)  # error: call-arg


async def use() -> None:
    await add.apush(None)  # error: arg-type
    word: str = await add.push(1)  # error: assignment
    word = await wait.push(1)  # error: assignment
    wait.push(n=word)  # error: arg-type


@task_deco("typed", concurent_num=3)  # error: call-arg
def misspelt() -> None: ...


@task_deco("typed", qps="5")  # error: arg-type
def wrong_type() -> None: ...


@task_deco("typed", retry_on="OSError")  # error: arg-type
def retried() -> None: ...


@task_deco("typed", specify_concurrent_pool=5)  # error: arg-type
def pooled() -> None: ...


@task_deco("typed", ack="soon")  # error: arg-type
def acknowledged() -> None: ...
