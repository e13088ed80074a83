"""Brokers x pools in a plain process; gevent and eventlet in processes of their own."""

from __future__ import annotations

import pytest
from conformance.end_to_end import EndToEnd, broker_name, one_process
from green import LIBRARIES, run_patched

__all__ = ["broker_name"]


class TestThreads(EndToEnd):
    place = one_process("threads")


class TestAsyncio(EndToEnd):
    place = one_process("asyncio")


class TestOneThread(EndToEnd):
    place = one_process("inline")


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_same_under(library):
    run_patched(library, "tests/conformance/patched_end_to_end.py")
