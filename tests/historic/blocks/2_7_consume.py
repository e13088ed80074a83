from fsdf_engine import task_deco, BrokerEnum


@task_deco("test_rpc_queue", is_using_rpc_mode=True, broker_kind=BrokerEnum.REDIS_ACK_ABLE)
def add(a, b):
    return a + b


if __name__ == "__main__":
    add.consume()
