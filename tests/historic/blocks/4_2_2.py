from gevent import monkey

monkey.patch_all()
from fsdf_engine import get_consumer


def add(a, b):
    print(f"计算 {a} + {b} 得到的结果是 {a + b}")
    return a + b


consumer_add = get_consumer(
    "queue_test569",
    consuming_function=add,
    max_retry_times=2,
    qps=0,
    log_level=10,
    logger_prefix="zz平台消费",
    concurrent_mode=2,
    broker_kind=2,
)

if __name__ == "__main__":
    consumer_add.start_consuming_message()
