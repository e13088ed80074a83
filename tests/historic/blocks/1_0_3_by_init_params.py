from fsdf_engine import task_deco, BrokerEnum, ConcurrentModeEnum
from fsdf_engine import (
    run_many_consumer_with_multi_process,
    consumer_init_params_include_consuming_function,
)
import os


@task_deco(
    "test_multi_process_queue",
    broker_kind=BrokerEnum.REDIS_ACK_ABLE,
    concurrent_mode=ConcurrentModeEnum.THREADING,
)
def fff(x):
    print(x * 10, os.getpid())


if __name__ == "__main__":
    run_many_consumer_with_multi_process(
        [consumer_init_params_include_consuming_function(fff)], process_num=6
    )
