"""How queues are named in RabbitMQ, and which there are beside a task's own. Pure.

Of the queue `q`:

- `q.dead` has its dead letters;
- what is delayed is in rungs, queues that each hold a message for one time. By far most walks have
  at most two, and no exchange that matches words, which costs the server half as much again: the
  first is `q.delay.a.N` for N tenths of a second, or `q.delay.b.N` for N * 12.8 s, to which an
  exchange of the same name leads, so that the routing key can name what comes next; the last is
  `q.delay.z.N` for N * 0.8 s, which leads to `q`;
- `q.delay.L.D` are the rungs of long walks, for D * 8**L * 0.8 s. The digits of the delay to the
  base 8, the lowest first, are the routing key: a message stays in one rung for each that is not 0.
  The exchange `q.delay.0.0` has what is published, and `q.delay.L.0` what leaves a rung below level
  L: each hands a message to the rung of the next such digit, or, where the key ends, to `q`;
- `q.delay.0` to `q.delay.27` had what former versions delayed;
- `q.held.TOKEN` has the messages of long runs of one worker, see `rabbitmq_held`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import ConfigurationError

__all__ = [
    "FORMER", "LONGEST", "MOST_TENTHS", "QUICK", "RUNGS", "TENTH", "after", "dead", "end_at",
    "first", "former", "gate", "held", "key_at", "lasts", "level_of", "long", "needs", "quick",
    "quick_lasts", "top_of", "valid", "way",
]  # fmt: skip

TENTH = 0.1  # seconds
MOST_TENTHS = (1 << 28) - 8
LONGEST = MOST_TENTHS * TENTH  # what one walk can last
# A move costs the server about as much as a publish; a rung some 0.1 MB, and 8 ms once.
_QUICK = {
    **{f"a.{n}": n for n in range(1, 8)},
    **{f"z.{n}": n * 8 for n in range(1, 16)},
    **{f"b.{n}": n * 128 for n in range(1, 32)},
}
_PLACES = {name: n for n, name in enumerate(_QUICK)}
_NAMES, _LASTS = tuple(_QUICK), tuple(_QUICK.values())
QUICK = len(_NAMES)
LONG = 32 * 128  # tenths from which on a walk is long
UNIT = 8  # tenths of the lowest digit of a long walk
DIGITS = 7  # of a level, beside 0
RUNGS = 8 * DIGITS + 1  # of long walks
FORMER = 28
MOST = 230  # bytes of a name, which leaves room for what is beside it
_BESIDE = re.compile(r".*\.(?:dead|delay\.(?:\d+|\d+\.\d+|[abz]\.\d+)|held\.[0-9a-f]+)", re.DOTALL)


def dead(queue: str) -> str:
    """Return the name of the queue of dead letters."""
    return f"{queue}.dead"


def quick(queue: str, n: int) -> str:
    """Return the name of a rung of walks of at most two; they are counted from the shortest."""
    return f"{queue}.delay.{_NAMES[n]}"


def first(n: int) -> bool:
    """Say whether a message can go on from this rung, by an exchange that leads to it."""
    return not _NAMES[n].startswith("z")


def quick_lasts(n: int) -> int:
    """Return for how many tenths of a second a message stays in such a rung."""
    return _LASTS[n]


def long(queue: str, n: int) -> str:
    """Return the name of a rung of long walks; they are counted from the shortest, from 0."""
    return f"{queue}.delay.{level_of(n)}.{n % DIGITS + 1}"


def level_of(n: int) -> int:
    """Return the place of a long rung's digit."""
    return n // DIGITS


def lasts(n: int) -> int:
    """Return for how many tenths of a second a message stays in a long rung."""
    return UNIT * int((n % DIGITS + 1) << 3 * level_of(n))


def gate(queue: str, level: int) -> str:
    """Return the name of the exchange to what is on its way through this level and those above."""
    return f"{queue}.delay.{level}.0"


def former(queue: str, k: int) -> str:
    """Return the name of a queue in which former versions have delayed."""
    return f"{queue}.delay.{k}"


def held(queue: str, token: str) -> str:
    """Return the name of the queue in which a worker keeps what it runs for long."""
    return f"{queue}.held.{token}"


def way(queue: str, tenths: int) -> tuple[str, str]:
    """Return the exchange and the routing key that begin a walk.

    From 128 on, `tenths` is a whole multiple of 8; 0 leads to the queue.
    """
    if tenths >= LONG:
        return gate(queue, 0), ".".join(f"{tenths // UNIT:o}"[::-1])
    coarse, fine = divmod(tenths, 128)
    middle, fine = divmod(fine, 8)
    key = f"{queue}.delay.z.{middle}" if middle else queue
    if not (coarse or fine):
        return "", key
    return f"{queue}.delay.{f'b.{coarse}' if coarse else f'a.{fine}'}", key


def top_of(key: str) -> int:
    """Return the number of the last rung of a long walk."""
    return DIGITS * (len(key) // 2) + int(key[-1]) - 1


def needs(queue: str, exchange: str, key: str) -> tuple[int, int]:
    """Return how many rungs, for walks of at most two and for long ones, a walk needs."""
    if exchange == gate(queue, 0):
        return 0, top_of(key) + 1
    start = len(queue) + len(".delay.")
    return max(_PLACES.get(name[start:], -1) for name in (exchange, key)) + 1, 0


def after(queue: str, exchange: str, key: str) -> Sequence[str]:
    """Return the rungs that a walk leads to after its first one."""
    if exchange != gate(queue, 0):
        return [key] if exchange and key != queue else []
    digits = [(level, int(digit)) for level, digit in enumerate(key.split(".")) if digit != "0"]
    return [long(queue, DIGITS * level + digit - 1) for level, digit in digits[1:]]


def key_at(level: int, n: int) -> str:
    """Return the pattern of routing keys that go from the gate of a level next to this rung."""
    above = level_of(n) - level
    return ".".join([*"*" * level, *"0" * above, f"{n % DIGITS + 1}", "#"])


def end_at(level: int) -> str:
    """Return the pattern of routing keys that end at the gate of a level."""
    return ".".join("*" * level)


def valid(name: str) -> None:
    """Refuse a name that is too long, the server's own, or lies beside another queue.

    Raises:
        ConfigurationError: it is one of these.
    """
    if (size := len(name.encode())) > MOST:
        raise ConfigurationError(
            f"the queue's name {name[:40]!r}... has {size} bytes; RabbitMQ leaves room for {MOST}"
        )
    if "\n" in name or "\r" in name:  # which it leaves out
        raise ConfigurationError(
            f"the queue's name {name!r} has a line break, which RabbitMQ leaves out;"
            " choose another one"
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
