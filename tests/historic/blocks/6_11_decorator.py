from fsdf_engine import task_deco


@task_deco("queue_test_f01", qps=0.2, broker_kind=2)
def add(a, b):
    print(a + b)


for i in range(10, 20):
    add.pub(dict(a=i, b=i * 2))
    add.push(i, b=i * 2)
add.consume()
