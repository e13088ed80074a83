"""Whatever a part of a layer does with one message: it has an end, and the next message runs."""

from __future__ import annotations

import json

import pytest
from helpers import until

from layer import troubled

PARTS = ("arguments", "runner", "sink")
# What a message's trouble is, and how it ends for who waits for it.
ENDS = {
    **{f"envelope:{how}": None for how in ("raise", "exit", "interrupt", "five", "odd")},
    "envelope:none": None,  # no other codec knows it either
    **{f"arguments:{how}": "invalid" for how in ("raise", "exit", "none", "five", "odd", "list")},
    "arguments:hang": "timedout",
    **{f"runner:{how}": "failed" for how in ("raise", "exit", "interrupt", "none", "five", "odd")},
    "runner:list": "failed",
    "runner:hang": "timedout",
    **{f"sink:{how}": "failed" for how in ("raise", "exit", "none", "five", "odd", "list")},
    "sink:hang": "timedout",
    "member:body": "failed",
    **{f"again:{how}": "failed" for how in ("raise", "exit", "interrupt", "none", "five", "odd")},
}
# Of a child. What is acknowledged late has six of them.
DEADLY = {"late": {"runner:die": "lost"}, "early": {f"{p}:die": "lost" for p in PARTS}}


@pytest.fixture
def serve(monkeypatch):
    """`serve(mode)` -> the app, served."""
    apps, pools = [], []

    def serve(mode):
        monkeypatch.setenv("LAYER_MODE", mode)
        apps.append(troubled.app(mode))
        more = {"resolve": "layer.troubled:resolve", "preload": ("layer.troubled",)}
        pools.append(apps[-1].consume(2, **more))
        return apps[-1]

    troubled.STAY.clear()
    yield serve
    troubled.STAY.set()
    for app, pool in zip(apps, pools):
        app.engine.close()
        pool.close(0.0)


@pytest.mark.parametrize("ack", ["late", "early"])
@pytest.mark.parametrize("mode", ["threads", "asyncio", "processes"])
def test_every_trouble_ends_its_message_and_no_other(serve, mode, ack):
    app, queue = serve(mode), f"toy.memory.{ack}"
    ends = ENDS | DEADLY[ack] if mode == "processes" else ENDS
    if mode == "asyncio":  # what blocks a loop blocks it: the layer's own part
        ends = {trouble: end for trouble, end in ends.items() if ":hang" not in trouble}
    batch = []
    for trouble in ends:
        n = "again" if trouble.startswith("again") else 1
        control = {"headers": {"trouble": trouble}, "limits": [0, 0.3 if "hang" in trouble else 0]}
        batch += [app.message(queue, trouble, "work", [n], **control),
                  app.message(queue, f"after {trouble}", "work", [2])]  # fmt: skip
    app.send(queue, *batch)
    for trouble, end in ends.items():
        assert app.get(queue, f"after {trouble}", 20.0) == ("done", 2)
        if end:
            assert app.get(queue, trouble, 20.0)[0] == end, trouble
    until(lambda: sum(app.of(queue).size()[:3]) == 0)
    letters = [json.loads(letter.body)[1]["id"] for letter in app.of(queue).dead_letters(200)]
    assert sorted(letters) == sorted(ends)
