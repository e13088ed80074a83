"""The end-to-end tests under the library that has patched this process."""

from __future__ import annotations

from conformance.end_to_end import EndToEnd, broker_name, one_process

from fsdf_engine.green import active_hub

__all__ = ["broker_name"]


class TestGreen(EndToEnd):
    place = one_process(active_hub())
