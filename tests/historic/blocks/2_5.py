import datetime
from fsdf_engine import task_deco, BrokerEnum, fsdf_background_scheduler, timing_publish_deco


@task_deco("queue_test_666", broker_kind=BrokerEnum.LOCAL_PYTHON_QUEUE)
def consume_func(x, y):
    print(f"{x} + {y} = {x + y}")


if __name__ == "__main__":
    fsdf_background_scheduler.add_job(
        timing_publish_deco(consume_func),
        "interval",
        id="3_second_job",
        seconds=3,
        kwargs={"x": 5, "y": 6},
    )
    fsdf_background_scheduler.add_job(
        timing_publish_deco(consume_func),
        "date",
        run_date=datetime.datetime(2020, 7, 24, 13, 53, 6),
        args=(
            5,
            6,
        ),
    )
    fsdf_background_scheduler.add_timing_publish_job(
        consume_func,
        "cron",
        day_of_week="*",
        hour=14,
        minute=51,
        second=20,
        args=(
            5,
            6,
        ),
    )
    fsdf_background_scheduler.start()
    consume_func.consume()
