from fsdf_engine import task_deco, BrokerEnum, ConcurrentModeEnum
import asyncio


@task_deco(
    "test_async_queue2",
    concurrent_mode=ConcurrentModeEnum.ASYNC,
    broker_kind=BrokerEnum.LOCAL_PYTHON_QUEUE,
    concurrent_num=500,
    qps=20,
)
async def async_f(x):
    await asyncio.sleep(1)
    print(id(asyncio.get_event_loop()))
    print(x)


if __name__ == "__main__":
    async_f.clear()
    for i in range(100):
        async_f.push(
            i,
        )
    async_f.consume()
