"""Consumers and connections of the current app. An old name, which other packages import."""

from __future__ import annotations

from .local import Proxy, getappattr

__all__ = ["TaskConsumer", "establish_connection", "get_consumer_set"]

TaskConsumer = Proxy(getappattr, ("amqp.TaskConsumer",))
establish_connection = Proxy(getappattr, ("connection",))
get_consumer_set = Proxy(getappattr, ("amqp.TaskConsumer",))
