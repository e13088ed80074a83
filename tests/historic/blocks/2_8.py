import time
import threading
from fsdf_engine import task_deco, BrokerEnum, ConcurrentModeEnum

t_start = time.time()


@task_deco(
    "queue_test2_qps",
    qps=2,
    broker_kind=BrokerEnum.PERSISTQUEUE,
    concurrent_mode=ConcurrentModeEnum.THREADING,
    concurrent_num=600,
)
def f2(a, b):
    result = a + b
    sleep_time = 0.01
    if time.time() - t_start > 60:
        sleep_time = 7
    if time.time() - t_start > 120:
        sleep_time = 30
    if time.time() - t_start > 240:
        sleep_time = 0.8
    if time.time() - t_start > 300:
        sleep_time = None
    print(
        f"{time.strftime('%H:%M:%S')} ,当前线程数量是 {threading.active_count()}, {a} + {b} 的结果是 {result}, sleep {sleep_time} 秒"
    )
    if sleep_time is not None:
        time.sleep(sleep_time)
    return result


if __name__ == "__main__":
    f2.clear()
    for i in range(1000):
        f2.push(i, i * 2)
    f2.consume()
