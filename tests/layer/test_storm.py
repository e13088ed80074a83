"""The layer in every mode: on brokers whose workers are killed, and in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import cycle

import pytest

from layer.storm import MODES, ROOT, Storm

# Each mode meets another broker without leases and with, each broker several modes; all of them
# together, for long, are `python -m layer`.
BROKERS = [("redis", "sqlite"), ("redis_ack", "redis_stream"), ("redis_brpoplpush", "redis")]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the test kills by signals")
@pytest.mark.parametrize(("mode", "brokers"), list(zip(MODES, cycle(BROKERS))))
def test_the_layer_loses_what_it_was_told_and_answers_everybody(
    mode, brokers, redis_url, tmp_path, monkeypatch
):
    monkeypatch.setenv("FSDF_REDIS_URL", redis_url)
    for name in ("LAYER_MODE", "LAYER_LEDGER", "LAYER_BROKERS"):
        monkeypatch.setenv(name, "")
    storm = Storm(mode, tmp_path, seed=7, brokers=brokers)
    try:
        storm.send(20)
        storm.rage(kills=2)
        assert list(storm.faults()) == []
    finally:
        storm.close()


@pytest.mark.parametrize("mode", MODES)
def test_the_layer_in_memory_loses_nothing_and_answers_everybody(mode):
    """In a process of its own, which a mode may patch."""
    command = [sys.executable, "-m", "layer", mode, "--brokers", "memory", "--seconds", "0"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    run = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stdout + run.stderr
