"""The SQL broker and its results in each pool of one process, as a user sees them."""

from __future__ import annotations

import pytest
from conformance.end_to_end import EndToEnd, one_process
from conformance.sql_end_to_end import broker_name
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
    run_patched(library, "tests/conformance/patched_sql_end_to_end.py")
