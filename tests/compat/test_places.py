"""The behavioural suite over other brokers and result backends than Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LIMIT = 1200.0  # seconds, of the whole suite on a busy machine
# Calls, hooks, retries, failures, chords, groups: what goes through broker and results.
SMOKE = "priority or revoked or retries or success or hooks or frozen_chord or group"


def set_servers(request, monkeypatch, *kinds):
    """Let the tests of another process use the servers of this one."""
    if "rabbitmq" in kinds:
        url, api = request.getfixturevalue("rabbitmq_server")
        monkeypatch.setenv("FSDF_TEST_RABBITMQ_URL", url.rpartition("/")[0] + "/")
        monkeypatch.setenv("FSDF_TEST_RABBITMQ_API", api.base)
    for kind in {"postgresql", "mysql"} & {*kinds}:
        url = request.getfixturevalue(f"{kind}_server")
        monkeypatch.setenv(f"FSDF_TEST_{kind.upper()}_URL", url)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broker", "results", "which"),
    [
        ("rabbitmq", "postgresql", ""),
        ("rabbitmq", "redis", SMOKE),
        ("postgresql", "postgresql", SMOKE),
        ("mysql", "mysql", SMOKE),
    ],
)
def test_behavioural_suite_holds(request, monkeypatch, broker, results, which):
    set_servers(request, monkeypatch, broker, results)
    steering = {"FSDF_BEHAVIOUR_BROKER": broker, "FSDF_BEHAVIOUR_RESULTS": results}
    words = "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/compat/behaviour"
    run = subprocess.run(
        [sys.executable, *words, "-k", which],
        cwd=ROOT,
        env={**os.environ, **steering},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert run.returncode == 0, run.stdout[-20_000:]
