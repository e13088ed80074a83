"""Five starts a second of a function that takes three seconds: about fifteen threads do it."""

import threading
import time

from fsdf_engine import task_deco

began = time.monotonic()


@task_deco("first_example", qps=5)
def add(x: int, y: int) -> int:
    print(f"{time.monotonic() - began:6.2f} s  {x} + {y}   {threading.active_count()} threads")
    time.sleep(3)
    return x + y


if __name__ == "__main__":
    for n in range(100):
        add.push(n, y=2 * n)
    add.consume()
