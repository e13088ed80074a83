"""Code that cannot await has coroutines run for it."""

from __future__ import annotations

import asyncio

import pytest
from green import LIBRARIES, run_patched

from fsdf_engine import run_coroutine


@pytest.mark.parametrize("library", LIBRARIES)
def test_greenlets_share_a_loop_beside_their_hub(library):
    run_patched(library, "tests/unit/patched_loop.py")


def test_a_thread_has_a_loop_of_its_own():
    async def loop():
        return asyncio.get_running_loop()

    assert run_coroutine(loop()) is not run_coroutine(loop())
