"""A plug-in of pytest: the children of this process are forked from a zygote."""

from __future__ import annotations

from fsdf_engine.pools import processes  # noqa: F401  as a worker command has it by then
from fsdf_engine.zygote import start_zygote


def pytest_configure(config):
    """Start it while there is no other thread."""
    config.add_cleanup(start_zygote())
