"""What code written for the old framework meets: its names, spellings and forms.

`docs/from_the_old_framework.md` has the whole table. Nothing else in the package knows of these
names; `fsdf_engine` hands them on when they are asked for, and each is imported then.
"""

from __future__ import annotations

from typing import Any

from ..errors import NotYetSupported

__all__ = ["ABSENT", "BROKERS", "HOMES", "LATER", "NotInThisVersion", "find"]

# Broker's member -> the classes of its consumer and publisher in the old framework.
BROKERS = {
    "RABBITMQ_AMQPSTORM": ("RabbitmqConsumerAmqpStorm", "RabbitmqPublisherUsingAmqpStorm"),
    "RABBITMQ_RABBITPY": ("RabbitmqConsumerRabbitpy", "RabbitmqPublisherUsingRabbitpy"),
    "RABBITMQ_PIKA": ("RabbitmqConsumer", "RabbitmqPublisher"),
    "REDIS": ("RedisConsumer", "RedisPublisher"),
    "LOCAL_PYTHON_QUEUE": ("LocalPythonQueueConsumer", "LocalPythonQueuePublisher"),
    "PERSISTQUEUE": ("PersistQueueConsumer", "PersistQueuePublisher"),
    "REDIS_ACK_ABLE": ("RedisConsumerAckAble",),
    "SQLACHEMY": ("SqlachemyConsumer", "SqlachemyQueuePublisher"),
    "REDIS_STREAM": ("RedisStreamConsumer", "RedisStreamPublisher"),
    "RedisBrpopLpush": ("RedisBrpopLpushConsumer", "RedisPublisherLpush"),
}
LATER = {
    "MONGOMQ": ("MongoMqConsumer", "MongoConsumer", "MongoMqPublisher", "MongoPublisher"),
    "NSQ": ("NsqConsumer", "NsqPublisher"),
    "KAFKA": ("KafkaConsumer", "KafkaPublisher"),
    "ROCKETMQ": ("RocketmqConsumer", "RocketmqPublisher"),
    "ZEROMQ": ("ZeroMqConsumer", "ZeroMqPublisher"),
    "KOMBU": ("KombuConsumer", "KombuPublisher"),
    "CONFLUENT_KAFKA": ("KafkaConsumerManuallyCommit", "ConfluentKafkaPublisher"),
}
# Name -> the module of this package that has it.
HOMES = {
    **{name: "classes" for names in BROKERS.values() for name in names},
    "RedisConsmer": "classes",  # as the old README spells it
    "AbstractConsumer": "clients",
    "AbstractPublisher": "clients",
    "ConsumersManager": "waiting",
    "FsdfBackgroundScheduler": "scheduler",
    "FunctionResultStatusPersistanceConfig": "options",
    "HasNotAsyncResult": "waiting",
    "PriorityConsumingControlConfig": "control",
    "QueueConsumer": "clients",
    "QueuePublisher": "clients",
    "ThreadPoolExecutorShrinkAble": "waiting",
    "consumer_init_params_include_consuming_function": "processes",
    "fsdf_background_scheduler": "scheduler",
    "get_consumer": "clients",
    "get_publisher": "clients",
    "run_many_consumer_by_init_params": "processes",
    "run_many_consumer_with_multi_process": "processes",
    "show_frame_config": "waiting",
    "timing_publish_deco": "scheduler",
    "wait_for_possible_has_finish_all_tasks": "waiting",
    "wait_for_possible_has_finish_all_tasks_by_conusmer_list": "waiting",
}
# Name -> what there is instead; these do not come.
ABSENT = {
    "IdeAutoCompleteHelper": "a decorated function is completed by editors as it is",
    "LogManager": "use logging.getLogger(); the loggers of this package are below 'fsdf'",
    "LoggerMixin": "use logging.getLogger(); the loggers of this package are below 'fsdf'",
    "RedisAsyncResult": "use default_engine().result(task_id)",
    "fabric_deploy": "copy the code as you do with other code, and run `fsdf run` there",
    "get_logger": "use logging.getLogger(); the loggers of this package are below 'fsdf'",
    "multi_process_pub_params_list": "use task.push_many(), which one process does as fast",
    "nb_print": "use print() or logging",
    "redis_db_frame": "use redis.Redis.from_url() with the URL that you configured",
}


class NotInThisVersion(NotYetSupported, ImportError):
    """A name of the old framework that this version does not have.

    It is an ImportError, since Python hides the text of an AttributeError from who imports.
    """


def find(name: str) -> Any:
    """Import and return what the old framework called `name`.

    Raises:
        NotInThisVersion: it comes later, or it does not come; tells what there is.
        AttributeError: the old framework had no such name.
    """
    if home := HOMES.get(name):
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{home}"), name)
    for broker, names in LATER.items():
        if name in names:
            kind = "Publisher" if "Publisher" in name else "Consumer"
            there = ", ".join(n for names in BROKERS.values() for n in names if kind in n)
            raise NotInThisVersion(
                f"{name} comes in a later version, with the broker {broker}; there are {there}"
            )
    if name in ABSENT:
        raise NotInThisVersion(f"{name} is not part of this package; {ABSENT[name]}")
    raise AttributeError(name)


def __getattr__(name: str) -> Any:
    """As `find`."""
    try:
        return find(name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
