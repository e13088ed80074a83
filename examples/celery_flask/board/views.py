from celery.result import AsyncResult
from flask import Blueprint, request

from . import tasks

bp = Blueprint("tasks", __name__, url_prefix="/tasks")


@bp.get("/result/<id>")
def result(id: str) -> dict[str, object]:
    found = AsyncResult(id)
    ready = found.ready()
    return {
        "ready": ready,
        "successful": found.successful() if ready else None,
        "value": found.get() if ready else found.result,
    }


@bp.post("/add")
def add() -> dict[str, object]:
    sent = tasks.add.delay(request.form.get("a", type=int), request.form.get("b", type=int))
    return {"result_id": sent.id}


@bp.post("/process")
def process() -> dict[str, object]:
    return {"result_id": tasks.process.delay(total=request.form.get("total", type=int)).id}
