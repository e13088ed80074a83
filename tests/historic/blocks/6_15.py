from fsdf_engine import task_deco, BrokerEnum


@task_deco(
    "queue_test_f01",
    broker_kind=BrokerEnum.RedisBrpopLpush,
)
def f(a, b):
    print(f"{a} + {b} = {a + b}")


if __name__ == "__main__":
    for i in range(100):
        f.push(i, b=i * 2)
    f.consume()
