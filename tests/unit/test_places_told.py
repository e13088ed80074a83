"""A worker and a publisher say once where they work, so that two places are told apart."""

from __future__ import annotations

import logging

import pytest
from helpers import until

from fsdf_engine import Engine


@pytest.fixture
def engine(caplog):
    caplog.set_level(logging.INFO, "fsdf.engine")
    engine = Engine({"REDIS_URL": "redis://:sesame@127.0.0.1:1/0"})
    yield engine
    engine.close()


def test_first_push_to_a_broker_tells_where_it_goes(engine, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = engine.task(print, "a"), engine.task(print, "b")
    there = engine.task(print, "c", broker_url="other.sqlite")
    for task in (first, first, second, there):
        task.push(1)
    assert [record.getMessage() for record in caplog.records] == [
        f"pushing to sqlite {tmp_path}/fsdf.sqlite",
        f"pushing to sqlite {tmp_path}/other.sqlite",
    ]


def test_consumer_tells_what_it_consumes_and_a_worker_does_not_push(engine, caplog, tmp_path):
    handle = engine.task(print, "a", broker_kind="memory").consume()
    until(lambda: caplog.records)
    handle.stop()
    told = [record.getMessage() for record in caplog.records]
    assert told == ["consuming queue a from memory of this process"]


def test_places_are_told_without_their_passwords(engine, caplog):
    broker = engine.broker("redis_ack")
    engine.publisher(broker)
    [record] = caplog.records
    assert record.getMessage() == "pushing to redis_ack redis://:***@127.0.0.1:1/0"
