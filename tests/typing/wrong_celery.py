"""What must not type-check of a project in Celery's shape: the code of each error stands beside."""

from __future__ import annotations

from typing import Any

from fsdf_compat import Celery

app = Celery("typed")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task(bind=True)
def bound(self: Any, x: int) -> str:
    return str(x)


add.delay("1")  # error: arg-type
add.delay(1, z=2)  # error: call-arg
add.delay()  # error: call-arg
bound.delay(None)  # error: arg-type
add.dely(1)  # error: attr-defined
text: str = add.delay(1).get()  # error: assignment
