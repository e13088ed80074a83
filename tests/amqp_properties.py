"""Properties of messages of RabbitMQ, for hypothesis to make up."""

from __future__ import annotations

from hypothesis import strategies as st


def properties_of(ids, latest, **others):
    """Return properties with one of these ids, perhaps those that we write, perhaps others."""
    return st.fixed_dictionaries(
        {"message_id": ids},
        optional={
            "delivery_mode": st.integers(1, 2),
            "priority": st.integers(0, 255),
            "timestamp": st.integers(0, latest),
            **others,
        },
    )
