"""The worker's consumer, and its steps by the names that users' steps require."""

from .agent import Agent
from .connection import Connection
from .consumer import Consumer
from .control import Control
from .delayed_delivery import DelayedDelivery
from .events import Events
from .gossip import Gossip
from .heart import Heart
from .mingle import Mingle
from .tasks import Tasks

__all__ = ("Agent", "Connection", "Consumer", "Control", "DelayedDelivery", "Events", "Gossip",
           "Heart", "Mingle", "Tasks")  # fmt: skip
