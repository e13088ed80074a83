"""What happens when a run fails, and how a function decides about its message."""

from fsdf_engine import Reject, Requeue, Retry, current, task_deco


@task_deco("retries_example", max_retry_times=3, retry_backoff=0.1, retry_on=(OSError,))
def work(kind: str) -> None:
    print(kind, "attempt", current.attempt)
    if kind == "flaky" and current.attempt < 2:
        raise ConnectionError("retried with backoff")
    if kind == "later":
        raise Retry(delay=0.5)
    if kind == "busy" and not tried:
        tried.append(kind)
        raise Requeue(delay=1.0)
    if kind == "wrong":
        raise Reject("this message makes no sense")


tried: list[str] = []

if __name__ == "__main__":
    consumer = work.consume()
    work.push_many([("flaky",), ("later",), ("busy",), ("wrong",)])
    work.join()
    for letter in work.dead_letters():
        print("dead:", letter.body.decode(), "because", letter.reason)
    work.clear(["dead"])
    consumer.stop()
