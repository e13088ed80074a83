"""The in-process broker against the conformance suite."""

from __future__ import annotations

import pytest

from fsdf_engine.brokers.memory import MemoryBroker
from fsdf_engine.testing.brokers import BrokerConformance


class TestMemory(BrokerConformance):
    @pytest.fixture
    def broker(self) -> MemoryBroker:
        return MemoryBroker()
