"""The layer in every mode, on every broker that outlives its worker, whose workers are killed."""

from __future__ import annotations

import os

import pytest

from layer.storm import Storm

MODES = ["threads", "asyncio"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the test kills by signals")
@pytest.mark.parametrize("mode", MODES)
def test_the_layer_loses_what_it_was_told_and_answers_everybody(
    mode, redis_url, tmp_path, monkeypatch
):
    monkeypatch.setenv("FSDF_REDIS_URL", redis_url)
    for name in ("LAYER_MODE", "LAYER_LEDGER"):
        monkeypatch.setenv(name, "")
    storm = Storm(mode, tmp_path, seed=7)
    try:
        storm.send(20)
        storm.rage(kills=2, most=150)
        assert list(storm.faults()) == []
    finally:
        storm.kill()
        storm.app.engine.close()
