import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
import redis

redis_db_frame = redis.Redis.from_url(os.environ["FSDF_REDIS_URL"])


def start_consuming_message(queue_name, consume_function, threads_num):
    pool = ThreadPoolExecutor(threads_num)
    while True:
        try:
            redis_task = redis_db_frame.brpop(queue_name, timeout=60)
            if redis_task:
                task_str = redis_task[1].decode()
                print(f"从redis的 {queue_name} 队列中 取出的消息是: {task_str}")
                pool.submit(consume_function, **json.loads(task_str))
            else:
                print(f"redis的 {queue_name} 队列中没有任务")
        except redis.RedisError as e:
            print(e)


def add(x, y):
    time.sleep(5)
    print(f"{x} + {y} 的结果是 {x + y}")


for i in range(100):
    redis_db_frame.lpush("test_beggar_redis_consumer_queue", json.dumps(dict(x=i, y=i * 2)))

start_consuming_message("test_beggar_redis_consumer_queue", consume_function=add, threads_num=10)
