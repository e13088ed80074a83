"""The contracts a plug-in implements: Broker, Subscription, Codec, Pool, Valve, Gate, Sink,
ResultStore, Transactions.

Instants are Unix seconds and durations are seconds, both float. Brokers move opaque bytes; only the
engine knows what is inside a message. Values are frozen dataclasses or tuples; what exists once per
message (Outgoing, Delivery, Job, Record) is a plain slots class that nobody changes after decoding.
"""

from __future__ import annotations

from . import execution, groups, marks, messaging, outcomes, records, transactions, wire
from .execution import *
from .groups import *
from .marks import *
from .messaging import *
from .records import *
from .transactions import *
from .wire import *

__all__ = ["outcomes"]
__all__ += execution.__all__
__all__ += groups.__all__
__all__ += marks.__all__
__all__ += messaging.__all__
__all__ += records.__all__
__all__ += transactions.__all__
__all__ += wire.__all__
