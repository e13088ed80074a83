"""The suite over brokers that lack each capability, and all that AMQP lacks."""

from __future__ import annotations

import pytest
from thin import LACKS, ThinBroker

from fsdf_engine.testing.brokers import BrokerConformance


class TestThin(BrokerConformance):
    @pytest.fixture(params=LACKS)
    def broker(self, request):
        return ThinBroker(LACKS[request.param])

    def cut(self, broker, sub):
        sub.cut()
