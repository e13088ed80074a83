from fsdf_engine import task_deco, BrokerEnum


@task_deco("queue_test_f03", qps=2, broker_kind=BrokerEnum.ROCKETMQ)
def f(a, b):
    print(f"{a} + {b} = {a + b}")


if __name__ == "__main__":
    for i in range(100):
        f.push(i, i * 2)
    f.consume()
