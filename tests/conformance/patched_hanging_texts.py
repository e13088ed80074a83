"""Hanging texts under the library that has patched this process."""

from __future__ import annotations

from conformance.hanging_texts import HangingTexts

from fsdf_engine.green import active_hub


class TestGreen(HangingTexts):
    mode = active_hub()
