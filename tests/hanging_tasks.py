"""Values and exceptions whose text has no end, and tasks that return and raise them.

Child processes import this module. In this process `GO` ends what hangs.
"""

from __future__ import annotations

import threading

from fsdf_engine import ConcurrentModeEnum, task_deco
from fsdf_engine.green import active_hub

GO = threading.Event()


def hang():
    while not GO.wait(0.005):
        pass
    return "an end"


class HangsAsText(Exception):
    def __str__(self):
        return hang()


class HangsAsArgument:
    def __repr__(self):
        return hang()


class HangsAsClass(Exception):
    @property
    def __class__(self):
        hang()
        return Exception


class HangsAsArguments(Exception):
    @property
    def args(self):
        hang()
        return ()


class HangsAsValue(dict):
    def items(self):
        hang()
        return ()


class EndlessValue(dict):
    def items(self):
        while not GO.is_set():
            yield "key", "value"


ERRORS = {
    "text": HangsAsText,
    "argument": lambda: ValueError(HangsAsArgument()),
    "class": HangsAsClass,
    "arguments": HangsAsArguments,
}
VALUES = {"value": HangsAsValue, "endless value": EndlessValue}
KINDS = [*ERRORS, *VALUES]
if active_hub():
    KINDS.remove("endless value")  # a greenlet that computes lets no other run


def work(kind):
    if kind in ERRORS:
        raise ERRORS[kind]()
    return VALUES[kind]() if kind in VALUES else kind


async def awork(kind):
    return work(kind)


OPTIONS = {"broker_kind": "memory", "is_using_rpc_mode": True, "max_retry_times": 0}
CHILD = {**OPTIONS, "concurrent_mode": ConcurrentModeEnum.PROCESSES, "concurrent_num": 2}
in_child = task_deco("hanging_processes", function_timeout=1.0, **CHILD)(work)
unlimited_in_child = task_deco("hanging_for_ever", **CHILD)(work)
