import time
from fsdf_engine import task_deco, BrokerEnum


@task_deco("task_queue_name1", qps=5, broker_kind=BrokerEnum.PERSISTQUEUE)
def task_fun(x, y):
    print(f"{x} + {y} = {x + y}")
    time.sleep(3)


if __name__ == "__main__":
    for i in range(100):
        task_fun.push(i, y=i * 2)
    task_fun.consume()
