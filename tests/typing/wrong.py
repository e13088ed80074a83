"""Every line marked `# error: CODE` must be exactly this type error, and no other line one."""

from __future__ import annotations

from fsdf_engine import task_deco


@task_deco("typed", broker_kind="memory")
def add(x: int, y: int = 0) -> int:
    return x + y


add.push("one")  # error: arg-type
add.push()  # error: call-arg
add.push(1, z=2)  # error: call-arg
add.push(1, 2, 3)  # error: call-arg
add("one")  # error: arg-type
text: str = add(1)  # error: assignment


async def use() -> None:
    await add.apush(None)  # error: arg-type


@task_deco("typed", concurent_num=3)  # error: call-arg
def misspelt() -> None: ...


@task_deco("typed", qps="5")  # error: arg-type
def wrong_type() -> None: ...
