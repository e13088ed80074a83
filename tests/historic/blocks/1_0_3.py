from fsdf_engine import task_deco, BrokerEnum, ConcurrentModeEnum, run_consumer_with_multi_process
import os


@task_deco(
    "test_multi_process_queue",
    broker_kind=BrokerEnum.REDIS_ACK_ABLE,
    concurrent_mode=ConcurrentModeEnum.THREADING,
)
def fff(x):
    print(x * 10, os.getpid())


if __name__ == "__main__":
    run_consumer_with_multi_process(fff, 6)
