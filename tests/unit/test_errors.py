"""What errors say."""

from __future__ import annotations

import pytest

from fsdf_engine.errors import PublishError


@pytest.mark.parametrize(
    ("rejected", "unknown", "text"),
    [
        (1, 0, "1 message was rejected: push it again"),
        (2, 0, "2 messages were rejected: push them again"),
        (0, 1, "whether the broker stored 1 message is unknown"),
        (
            1,
            2,
            "1 message was rejected: push it again;"
            " whether the broker stored 2 messages is unknown",
        ),
    ],
)
def test_what_was_not_stored_is_counted_and_nothing_else_is_told(rejected, unknown, text):
    assert str(PublishError([object()] * rejected, [object()] * unknown)) == text
