"""What clients of SQL servers raise, as errors of ours."""

from __future__ import annotations

import psycopg
import pymysql
import pytest

from fsdf_engine.brokers.sql_errors import Blame, blame_of, translated
from fsdf_engine.errors import BrokerError, ServerRefused, Unanswered, Unavailable


def every(cls):
    return {cls}.union(*(every(below) for below in cls.__subclasses__()))


@pytest.mark.parametrize("root", [psycopg.Error, pymysql.err.MySQLError, OSError])
def test_every_class_of_the_clients_has_a_meaning(root):
    for cls in every(root):
        try:
            error = cls("some words")
        except TypeError:
            continue  # it takes more; its base class is here
        blame = blame_of(error)
        if cls.__module__.partition(".")[0] not in ("psycopg", "pymysql") and root is not OSError:
            continue
        assert isinstance(blame, Blame), cls
        assert isinstance(translated(error, blame, "there", True), BrokerError | ServerRefused), cls


@pytest.mark.parametrize(
    ("text", "blame"),
    [
        ("FATAL:  the database system is starting up", Blame.LOST),
        ("FATAL:  the database system is shutting down", Blame.LOST),
        ("FATAL:  the database system is in recovery mode", Blame.LOST),
        ("FATAL:  the database system is not yet accepting connections", Blame.LOST),
        ("FATAL:  the database system is not accepting connections", Blame.LOST),
        ("FATAL:  sorry, too many clients already", Blame.LOST),
        ("FATAL:  remaining connection slots are reserved", Blame.LOST),
        ("connection refused", Blame.LOST),
        ('FATAL:  password authentication failed for user "x"', Blame.US),
        ('FATAL:  database "x" does not exist', Blame.US),
    ],
)
def test_postgresql_that_is_about_to_serve_is_waited_for(text, blame):
    assert blame_of(psycopg.OperationalError(text)) is blame


@pytest.mark.parametrize(
    ("code", "blame"),
    [
        (1213, Blame.NOBODY), (1205, Blame.NOBODY), (2013, Blame.LOST), (1045, Blame.US),
        (1146, Blame.TABLE), (1153, Blame.VALUE), (1040, Blame.AWAY), (1290, Blame.AWAY),
    ],
)  # fmt: skip
def test_numbers_of_mysql_have_their_meanings(code, blame):
    assert blame_of(pymysql.err.OperationalError(code, "words")) is blame


@pytest.mark.parametrize("blame", [Blame.US, Blame.TABLE])
def test_what_is_configured_wrongly_is_told_with_each_place_that_may_say_it(blame):
    told = str(translated(psycopg.OperationalError("no"), blame, "there", True))
    assert "broker_url or SQLALCHEMY_URL" in told


def test_what_was_sent_may_have_taken_effect():
    error = psycopg.OperationalError("gone")
    assert type(translated(error, Blame.LOST, "there", True)) is Unanswered
    assert type(translated(error, Blame.LOST, "there", False)) is Unavailable
