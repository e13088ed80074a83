"""A class for each broker: `RedisConsumer("q", consuming_function=f).start_consuming_message()`."""

from __future__ import annotations

from ..registry import BrokerEnum
from .clients import QueueConsumer, QueuePublisher

__all__ = [
    "LocalPythonQueueConsumer", "LocalPythonQueuePublisher", "PersistQueueConsumer",
    "PersistQueuePublisher", "RabbitmqConsumer", "RabbitmqConsumerAmqpStorm",
    "RabbitmqConsumerRabbitpy", "RabbitmqPublisher", "RabbitmqPublisherUsingAmqpStorm",
    "RabbitmqPublisherUsingRabbitpy", "RedisBrpopLpushConsumer", "RedisConsmer", "RedisConsumer",
    "RedisConsumerAckAble", "RedisPublisher", "RedisPublisherLpush", "RedisStreamConsumer",
    "RedisStreamPublisher",
    "SqlachemyConsumer", "SqlachemyQueuePublisher",
]  # fmt: skip


class RabbitmqConsumer(QueueConsumer):
    """A consumer on RABBITMQ_PIKA."""

    broker_kind = BrokerEnum.RABBITMQ_PIKA


class RabbitmqPublisher(QueuePublisher):
    """A publisher on RABBITMQ_PIKA."""

    broker_kind = BrokerEnum.RABBITMQ_PIKA


class RabbitmqConsumerAmqpStorm(QueueConsumer):
    """A consumer on RABBITMQ_AMQPSTORM."""

    broker_kind = BrokerEnum.RABBITMQ_AMQPSTORM


class RabbitmqPublisherUsingAmqpStorm(QueuePublisher):
    """A publisher on RABBITMQ_AMQPSTORM."""

    broker_kind = BrokerEnum.RABBITMQ_AMQPSTORM


class RabbitmqConsumerRabbitpy(QueueConsumer):
    """A consumer on RABBITMQ_RABBITPY."""

    broker_kind = BrokerEnum.RABBITMQ_RABBITPY


class RabbitmqPublisherUsingRabbitpy(QueuePublisher):
    """A publisher on RABBITMQ_RABBITPY."""

    broker_kind = BrokerEnum.RABBITMQ_RABBITPY


class RedisConsumer(QueueConsumer):
    """A consumer on REDIS."""

    broker_kind = BrokerEnum.REDIS


class RedisPublisher(QueuePublisher):
    """A publisher on REDIS."""

    broker_kind = BrokerEnum.REDIS


class LocalPythonQueueConsumer(QueueConsumer):
    """A consumer on LOCAL_PYTHON_QUEUE."""

    broker_kind = BrokerEnum.LOCAL_PYTHON_QUEUE


class LocalPythonQueuePublisher(QueuePublisher):
    """A publisher on LOCAL_PYTHON_QUEUE."""

    broker_kind = BrokerEnum.LOCAL_PYTHON_QUEUE


class PersistQueueConsumer(QueueConsumer):
    """A consumer on PERSISTQUEUE."""

    broker_kind = BrokerEnum.PERSISTQUEUE


class PersistQueuePublisher(QueuePublisher):
    """A publisher on PERSISTQUEUE."""

    broker_kind = BrokerEnum.PERSISTQUEUE


class RedisConsumerAckAble(QueueConsumer):
    """A consumer on REDIS_ACK_ABLE."""

    broker_kind = BrokerEnum.REDIS_ACK_ABLE


class RedisStreamConsumer(QueueConsumer):
    """A consumer on REDIS_STREAM."""

    broker_kind = BrokerEnum.REDIS_STREAM


class RedisStreamPublisher(QueuePublisher):
    """A publisher on REDIS_STREAM."""

    broker_kind = BrokerEnum.REDIS_STREAM


class RedisBrpopLpushConsumer(QueueConsumer):
    """A consumer on RedisBrpopLpush."""

    broker_kind = BrokerEnum.RedisBrpopLpush


class RedisPublisherLpush(QueuePublisher):
    """A publisher on RedisBrpopLpush."""

    broker_kind = BrokerEnum.RedisBrpopLpush


RedisConsmer = RedisConsumer  # as the old README spells it


class SqlachemyConsumer(QueueConsumer):
    """A consumer on SQLACHEMY."""

    broker_kind = BrokerEnum.SQLACHEMY


class SqlachemyQueuePublisher(QueuePublisher):
    """A publisher on SQLACHEMY."""

    broker_kind = BrokerEnum.SQLACHEMY
