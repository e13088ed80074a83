"""Two steps, each with a queue of its own; the first pushes to the second."""

from fsdf_engine import task_deco


@task_deco("pipeline_first")
def fetch(page: int) -> None:
    store.push(page, text=f"content of page {page}")


@task_deco("pipeline_second")
def store(page: int, text: str) -> None:
    print(page, text)


if __name__ == "__main__":
    consumers = [fetch.consume(), store.consume()]
    fetch.push_many((page,) for page in range(10))
    fetch.join()
    store.join()
    for consumer in consumers:
        consumer.stop()
