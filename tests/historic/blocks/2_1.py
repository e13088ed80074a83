import time
from fsdf_engine import get_consumer


def f2(a, b):
    print(f"消费此消息 {a} + {b} 中。。。。。")
    time.sleep(10)
    print(f"计算 {a} + {b} 得到的结果是 {a + b}")


consumer = get_consumer("queue_test2", consuming_function=f2, broker_kind=6)
consumer.publisher_of_same_queue.clear()
[consumer.publisher_of_same_queue.publish(dict(a=i, b=i * 2)) for i in range(100)]
consumer.start_consuming_message()
