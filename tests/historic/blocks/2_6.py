import time
from fsdf_engine import task_deco, BrokerEnum, ConcurrentModeEnum, run_consumer_with_multi_process
import os
import requests
import threading


@task_deco(
    "test_multi_process_queue",
    broker_kind=BrokerEnum.REDIS_ACK_ABLE,
    concurrent_mode=ConcurrentModeEnum.THREADING,
    qps=100,
)
def fff(x):
    resp = requests.get("http://www.baidu.com/content-search.xml")
    print(x, os.getpid(), threading.get_ident(), resp.text[:5])


if __name__ == "__main__":
    for i in range(10000):
        fff.push(i)
    # fff.consume()
    run_consumer_with_multi_process(fff, 16)
