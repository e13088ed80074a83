"""What must type-check of a project in Celery's shape, and what it is."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

from fsdf_compat import App, AsyncResult, Celery, Signature, chain, chord, group, shared_task
from fsdf_compat.result import GroupResult

app = Celery("typed", broker="memory://")
assert_type(app, App)


@app.task
def add(x: int, y: int = 0, *, note: str = "") -> int:
    return x + y


@app.task(bind=True, max_retries=3)
def bound(self: Any, x: int) -> str:
    raise self.retry(countdown=x)


@shared_task
def shared(x: int) -> float:
    return x


@shared_task(name="named", ignore_result=True)
def named() -> None: ...


@app.task
async def waits(n: int) -> str:
    return str(n)


@app.task(pydantic=True)
def of_a_model(model: AsyncResult) -> int:  # any class, sent as a dict
    return 1


class Place:
    @staticmethod
    @app.task
    def static(x: int) -> int:
        return x


assert_type(add(1, y=2), int)
assert_type(add.delay(1, note="").get(timeout=10), int)
assert_type(add.delay(1).id, str)
assert_type(add.delay(1).state, str)
assert_type(add.apply_async((1, 2), countdown=3, queue="x", link=add.s(3)).get(), int)
assert_type(add.s(1).delay(2).get(), int)
assert_type(add.si(1).set(queue="x").apply_async().get(), int)
assert_type(bound.delay(1).get(), str)
assert_type(shared.delay(1).get(), float)
assert_type(named.delay().get(), None)
assert_type(waits.delay(1).get(), str)
assert_type(waits.apply_async((1,)).get(), str)
assert_type(of_a_model.delay({"id": "1"}).get(), int)
assert_type(Place.static.delay(1).get(), int)
assert_type(add.s(1) | add.s(2), Signature)
assert_type(group(add.s(1), add.s(2))(), GroupResult)
assert_type(app.send_task("add", [1, 2], queue="x"), AsyncResult)
steps: Signature = chain(add.s(1), add.s(2)) | chord([add.s(1)], add.s(2))
result: AsyncResult = add.delay(1)
add.update_state(state="x")
named.max_retries, add.request.id, add.chunks([(1, 2)], 5)
