"""funboost with REDIS_ACK_ABLE; its worker is this file run as a script."""

import logging
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

# its configuration file must be found when it is imported; at the end of the path, because it
# writes files into the path's second folder
sys.path.append(str(Path(__file__).parent))

from funboost import BoosterParams, BrokerEnum, ConcurrentModeEnum, boost

from benchmarks.meter import hit

RESULTS = os.environ.get("BENCH_RESULTS") == "1"


@boost(
    BoosterParams(
        queue_name="bench",
        broker_kind=BrokerEnum.REDIS_ACK_ABLE,
        concurrent_mode=ConcurrentModeEnum.THREADING,
        concurrent_num=int(os.environ.get("BENCH_SLOTS", "50")),
        log_level=logging.ERROR,
        create_logger_file=False,
        is_using_rpc_mode=RESULTS,
        broker_exclusive_config={"pull_msg_batch_size": int(os.environ["BENCH_PREFETCH"])},
    )
)
def noop(n: int) -> int:
    hit(n)
    return n


def publish(numbers: Iterable[int]) -> None:
    for n in numbers:
        noop.push(n)


def round_trips(numbers: Iterable[int]) -> list[float]:
    taken, clock = [], time.perf_counter
    for n in numbers:
        start = clock()
        waiting = noop.push(n)
        waiting.set_timeout(30)
        if waiting.result != n:
            raise AssertionError(n)
        taken.append(clock() - start)
    return taken


if __name__ == "__main__":
    noop.consume()
