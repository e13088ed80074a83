"""A short storm over each broker that confirms; `python -m chaos` lets one rage for long."""

from __future__ import annotations

import pytest
from chaos.storm import Storm
from chaos.verdict import Line, Published, judge

SECONDS = 10.0
DURABLE = ["sqlite", "redis_ack", "redis_stream", "redis_brpoplpush"]
SQL = ["postgresql", "mariadb"]


@pytest.fixture(params=[*DURABLE, *SQL])
def storm(request, tmp_path):
    server, kind = None, request.param
    if kind in SQL:
        server, kind = request.getfixturevalue("own_server")(kind), "sqlalchemy"
    elif kind != "sqlite":
        server = request.getfixturevalue("own_redis")(aof=True, config={"appendfsync": "always"})
    storm = Storm(kind, tmp_path, server, seed=7)
    yield storm
    storm.close()


def test_a_storm_loses_nothing_and_answers_everybody(storm):
    verdict = storm.rage(SECONDS)
    assert verdict.faults() == {}
    assert len(storm.published.stored) > 300
    assert len(storm.faults) >= 3, storm.faults


def lines(*rows):
    return [Line(what, id, 0, lost, 0, at, "-") for what, id, lost, at in rows]


def test_the_verdict_sees_what_is_wrong():
    published = Published(dict.fromkeys("abcd", "plain"), {"b": 5.0})
    verdict = judge(
        published,
        lines(
            ("start", "b", 0, 4.0), ("end", "b", 0, 4.0),  # before its time
            ("start", "c", 0, 1.0), ("start", "c", 0, 1.1), ("end", "c", 0, 1.2),  # twice at once
            ("start", "d", 0, 1.0), ("start", "d", 1, 1.1), ("end", "d", 1, 1.2),  # repeated
            ("start", "e", 0, 1.0), ("end", "e", 0, 1.0),  # that nobody pushed
        ),
    )  # fmt: skip
    assert (verdict.lost, verdict.early, verdict.strangers) == (["a"], ["b"], ["e"])
    assert [text.partition(":")[0] for text in verdict.unexplained] == ["c"]
    assert verdict.repeated == 2
