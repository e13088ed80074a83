"""Exceptions and values that do not behave, and tasks that raise and return them.

Child processes import this module.
"""

from __future__ import annotations

import builtins
import dataclasses

from fsdf_engine import ConcurrentModeEnum, task_deco


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class Swapped(Exception):
    def __init__(self, a, b):
        self.a, self.b = b, a


class HidesArgs(Exception):
    @property
    def args(self):
        raise RuntimeError("no args")


class NoArgs(Exception):
    args = None


class ManyArgs(Exception):
    args = "not a tuple"


class Strange(type):
    @property
    def __name__(cls):
        raise RuntimeError("no name")

    @property
    def __module__(cls):
        raise RuntimeError("no module")

    def __eq__(cls, other):
        raise RuntimeError("not comparable")

    __hash__ = None


class OddClass(Exception, metaclass=Strange):
    pass


class Disguised(Exception):
    @property
    def __class__(self):
        raise RuntimeError("no class")


class NotEqual(Exception):
    def __eq__(self, other):
        raise RuntimeError("not comparable")

    __hash__ = None


class NotBool(Exception):
    def __bool__(self):
        raise RuntimeError("neither")


class HidesTrace(Exception):
    @property
    def __traceback__(self):
        raise RuntimeError("no traceback")


class HidesCause(Exception):
    @property
    def __cause__(self):
        raise RuntimeError("no cause")


class EndlessCause(Exception):
    @property
    def __cause__(self):
        return EndlessCause()


class OddText(str):
    def __len__(self):
        return 1

    def encode(self, *_, **__):
        raise RuntimeError("no bytes")


class SpeaksOddly(Exception):
    def __str__(self):
        return OddText("a text of its own " * 1000)


class Base(BaseException):
    pass


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


def looped():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def chained():
    error = first = ValueError("0")
    for n in range(300):
        error.__cause__ = ValueError("x" * 1000 + str(n))
        error = error.__cause__
    return first


def group():
    inner = ExceptionGroup("inner", [ValueError(2), Mute()])  # noqa: F821 - Python 3.11
    return ExceptionGroup("outer", [OSError(1), inner])  # noqa: F821 - Python 3.11


ERRORS = {
    "mute": Mute,
    "swapped": lambda: Swapped(1, object()),
    "hides args": HidesArgs,
    "no args": NoArgs,
    "args of another type": lambda: ManyArgs("x"),
    "odd class": OddClass,
    "disguised": lambda: Disguised("x"),
    "not equal": lambda: NotEqual("x"),
    "not bool": lambda: NotBool("x"),
    "hides trace": HidesTrace,
    "hides cause": HidesCause,
    "endless cause": EndlessCause,
    "speaks oddly": SpeaksOddly,
    "surrogates": lambda: ValueError("\udce4 \x00 \ud800", b"\xff", float("nan"), 10**400),
    "huge": lambda: ValueError("x" * 5_000_000),
    "huge and odd": lambda: ValueError(["x" * 5_000_000]),
    "many arguments": lambda: ValueError(*range(100_000)),
    "looped": looped,
    "chained": chained,
    "frozen": lambda: Frozen(3),
    "base": lambda: Base("base"),
    "exit": lambda: SystemExit(3),
    "interrupt": KeyboardInterrupt,
    "generator's": lambda: GeneratorExit("x"),
    "end": lambda: StopIteration("x"),
}
if hasattr(builtins, "ExceptionGroup"):
    ERRORS["group"] = group

    class OwnGroup(ExceptionGroup):  # noqa: F821 - Python 3.11
        @property
        def exceptions(self):
            return (self,)

    class EndlessGroup(ExceptionGroup):  # noqa: F821 - Python 3.11
        @property
        def exceptions(self):
            while True:
                yield ValueError(1)

    ERRORS["own group"] = lambda: OwnGroup("own", [ValueError(1)])
    ERRORS["endless group"] = lambda: EndlessGroup("endless", [ValueError(1)])


class Items(dict):
    def items(self):
        raise Base("no items")


def fail(name):
    raise ERRORS[name]()


async def afail(name):
    raise ERRORS[name]()


OPTIONS = {"broker_kind": "memory", "is_using_rpc_mode": True, "max_retry_times": 1}
CHILD = {**OPTIONS, "concurrent_mode": ConcurrentModeEnum.PROCESSES, "concurrent_num": 1}


@task_deco("odd_processes", **CHILD)
def in_child(name):
    fail(name)


@task_deco("odd_values", **CHILD)
def value_in_child(name):
    return Items(a=1)
