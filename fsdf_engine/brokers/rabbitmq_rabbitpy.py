"""RABBITMQ_RABBITPY: the same messages and queues, by amqpstorm's client.

rabbitpy 3.0.2 cannot hold what a broker here has to. A connection with nothing to do turns its loop
without a pause, tens of thousands of times a second, which takes a quarter of a core and more; a
confirm takes 43 ms for want of TCP_NODELAY; a connection that the server has closed goes on to say
that it is open. The name stays for those who have it in their code.
"""

from __future__ import annotations

from .rabbitmq_amqpstorm import RabbitmqAmqpstormBroker

__all__ = ["RabbitmqRabbitpyBroker"]


class RabbitmqRabbitpyBroker(RabbitmqAmqpstormBroker):
    """RabbitMQ, where rabbitpy was meant."""
