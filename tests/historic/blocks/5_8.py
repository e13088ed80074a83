from fsdf_engine import task_deco, BrokerEnum


class A:
    def __init__(self, x):
        self.x = x

    def add(self, y):
        print(self.x + y)


@task_deco("queue_test_class", broker_kind=BrokerEnum.PERSISTQUEUE)
def your_task(x, y):
    return A(x).add(y)


if __name__ == "__main__":
    your_task.push(1, 2)
    your_task.consume()
