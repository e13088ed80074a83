"""What several files of this folder share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fsdf_engine.contracts import Broker
from fsdf_engine.registry import brokers


@pytest.fixture
def make(kind_of_broker: str) -> Iterator[Callable[[str], Broker]]:
    """`make(url)` -> a broker of the kind that the file names, closed at the end."""
    made: list[Broker] = []

    def make(url: str) -> Broker:
        made.append(brokers.load(kind_of_broker)(url))
        return made[-1]

    yield make
    for broker in made:
        broker.close()
