"""The end-to-end tests of SQL under the library that has patched this process."""

from __future__ import annotations

from conformance.end_to_end import EndToEnd, one_process
from conformance.sql_end_to_end import broker_name

from fsdf_engine.green import active_hub

__all__ = ["broker_name"]


class TestGreen(EndToEnd):
    place = one_process(active_hub())
