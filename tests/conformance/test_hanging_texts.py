"""Hanging texts in a plain process; under gevent and eventlet in processes of their own."""

from __future__ import annotations

import importlib
import os
import sys

import pytest
from conformance.hanging_texts import HangingTexts
from green import LIBRARIES, run_patched


class TestThreads(HangingTexts):
    mode = "threads"


class TestOneThread(HangingTexts):
    mode = "inline"


class TestAsyncio(HangingTexts):
    mode = "asyncio"
    others_wait = True


@pytest.mark.skipif(os.name != "posix", reason="children are killed by signals")
class TestProcesses(HangingTexts):
    @pytest.fixture(autouse=True)
    def tasks(self):
        """The module, freshly imported: its tasks belong to the default engine of now."""
        sys.modules.pop("hanging_tasks", None)
        self.module = importlib.import_module("hanging_tasks")

    def limited(self):
        return self.module.in_child

    def unlimited(self):
        return self.module.unlimited_in_child


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_same_under(library):
    run_patched(library, "tests/conformance/patched_hanging_texts.py")
