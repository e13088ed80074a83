from celery.result import AsyncResult
from fastapi import Body, FastAPI
from worker import create_task, nap

app = FastAPI()


@app.post("/tasks", status_code=201)
def run_task(payload=Body(...)):
    return {"task_id": create_task.delay(payload["type"]).id}


@app.post("/naps", status_code=201)
async def run_nap(payload=Body(...)):
    return {"task_id": nap.delay(payload["seconds"]).id}


@app.get("/tasks/{task_id}")
def get_status(task_id):
    result = AsyncResult(task_id)
    return {"task_id": task_id, "task_status": result.status, "task_result": result.result}
