"""Resolvers under the library that has patched this process."""

from __future__ import annotations

from conformance.resolvers import Resolvers

from fsdf_engine.green import active_hub


class TestGreen(Resolvers):
    mode = active_hub()
