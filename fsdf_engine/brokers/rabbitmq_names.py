"""How queues are named in RabbitMQ, and which there are beside a task's own. Pure.

Of the queue `q`:

- `q.dead` has its dead letters;
- `q.delay.0` to `q.delay.27`, the ladder, have what is delayed: `q.delay.k` for 2**k tenths of a
  second. A message walks down the bits of its delay, which are its routing key. Each rung has an
  exchange of its own name, which hands on what comes to it: into the rung where the bit of the key
  is set, else to the next lower exchange, and at the end into `q`. So does what leaves a rung;
- `q.held.TOKEN` has the messages of long runs of one worker, see `rabbitmq_held`.
"""

from __future__ import annotations

import re

from ..errors import ConfigurationError

__all__ = [
    "LONGEST",
    "RUNGS",
    "TENTH",
    "dead",
    "held",
    "key_of",
    "rung",
    "rung_of",
    "steps",
    "valid",
]

RUNGS = 28
TENTH = 0.1  # seconds
LONGEST = ((1 << RUNGS) - 1) * TENTH  # what one walk can last
MOST = 230  # bytes of a name, which leaves room for what is beside it
_BESIDE = re.compile(r".*\.(?:dead|delay\.\d+|held\.[0-9a-f]+)", re.DOTALL)


def dead(queue: str) -> str:
    """Return the name of the queue of dead letters."""
    return f"{queue}.dead"


def rung(queue: str, k: int) -> str:
    """Return the name of a rung, and of its exchange."""
    return f"{queue}.delay.{k}"


def rung_of(name: str) -> int:
    """Return the number of a rung, by its name or that of its exchange."""
    return int(name.rpartition(".")[2])


def held(queue: str, token: str) -> str:
    """Return the name of the queue in which a worker keeps what it runs for long."""
    return f"{queue}.held.{token}"


def steps(tenths: int) -> tuple[int, str]:
    """Return the first rung of a walk of so many tenths of a second, and its routing key."""
    return tenths.bit_length() - 1, ".".join(format(tenths, f"0{RUNGS}b"))


def key_of(k: int, bit: str) -> str:
    """Return the pattern of routing keys in which a rung's bit is so."""
    return ".".join("*" * (RUNGS - 1 - k) + bit + "*" * k)


def valid(name: str) -> None:
    """Refuse a name that is too long, the server's own, or lies beside another queue.

    Raises:
        ConfigurationError: it is one of these.
    """
    if (size := len(name.encode())) > MOST:
        raise ConfigurationError(
            f"the queue's name {name[:40]!r}... has {size} bytes; RabbitMQ leaves room for {MOST}"
        )
    if name.startswith("amq."):
        raise ConfigurationError(
            f"the queue's name {name!r} begins with 'amq.', which RabbitMQ keeps for itself;"
            " choose another one"
        )
    if _BESIDE.fullmatch(name):
        raise ConfigurationError(
            f"the queue's name {name!r} would be beside another one's, for its dead letters,"
            " delayed messages or long runs; choose another one"
        )
