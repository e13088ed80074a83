"""Messages in transactions of SQLAlchemy's users, on each database: they share their fate."""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import datetime, timedelta

import pytest
from helpers import until
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, event, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from fsdf_engine import Retry, current, default_engine, task_deco
from fsdf_engine.brokers import sql, sqlite
from fsdf_engine.brokers.sql_database import SqlDatabase
from fsdf_engine.brokers.sqlite import SqliteBroker
from fsdf_engine.contracts import Outgoing, QueueSize
from fsdf_engine.engine import reset_default_engine
from fsdf_engine.errors import ArgumentError, ConfigurationError, Unavailable

DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
ORDERS = Table("orders", MetaData(), Column("n", Integer, primary_key=True))


@pytest.fixture(params=["postgresql", "mysql", "sqlite"])
def product(request):
    return request.param


@pytest.fixture
def url(product, request, tmp_path, monkeypatch):
    """An empty database; at a file who waits looks sooner than in life."""
    if product == "sqlite":
        monkeypatch.setattr(sqlite, "LOOK", 0.1)
        yield f"sqlite:///{tmp_path}/app.sqlite"
    else:
        yield from left(request.getfixturevalue(f"{product}_url"))


@pytest.fixture
def home(postgresql_url):
    """An empty database of PostgreSQL."""
    yield from left(postgresql_url)


def left(url):
    """Yield a database; leave no connection to it for the next test, whose own it would be."""
    yield url
    reset_default_engine()
    SqlDatabase.shared(url).close()


def app_engine(url, **options):
    """Return the engine of an application: on a server of this host under its other name."""
    parsed = make_url(url)
    if driver := DRIVERS.get(parsed.drivername):
        parsed = parsed.set(drivername=driver, host="localhost")
    return create_engine(parsed, **options)


@pytest.fixture
def app(url):
    engine = app_engine(url)
    ORDERS.create(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def ran():
    return []


@pytest.fixture
def paid(url, ran):
    """A task whose queue is in the application's database."""

    @task_deco("paid", broker_kind="sqlalchemy", broker_url=url, is_using_rpc_mode=True)
    def paid(n):
        ran.append(n)
        return n + 1

    return paid


def orders(engine):
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(ORDERS))


def order(session, n):
    session.execute(ORDERS.insert().values(n=n))


def test_message_is_committed_with_what_else_the_session_has_stored(app, paid, ran):
    paid.size()
    paid.consume()
    with Session(app) as session:
        order(session, 1)
        assert len(paid.push_in(session, 1)) == 32
        session.commit()
    until(lambda: ran == [1])
    assert orders(app) == 1


def test_message_is_rolled_back_with_all_else(app, paid):
    paid.size()  # makes the tables: in a file they are not made while a transaction writes
    with Session(app) as session:
        order(session, 1)
        paid.push_in(session, 1)
        session.rollback()
        order(session, 2)
        paid.push_in(session, n=2)
        session.commit()
    assert orders(app) == 1
    assert paid.size() == QueueSize(1, 0, 0, 0)


def test_message_of_a_savepoint_is_rolled_back_with_it(app, paid, ran):
    if app.dialect.name == "sqlite":  # as SQLAlchemy says that savepoints need to be begun there

        @event.listens_for(app, "connect")
        def leave(raw, _):
            raw.isolation_level = None

        @event.listens_for(app, "begin")
        def begin(connection):
            connection.exec_driver_sql("BEGIN")

    with Session(app) as session:
        paid.push_in(session, 1)
        with session.begin_nested() as savepoint:
            paid.push_in(session, 2)
            savepoint.rollback()
        paid.push_in(session, 3)
        session.commit()
    paid.consume()
    until(lambda: sorted(ran) == [1, 3])


def test_message_is_nobody_elses_before_the_commit(app, paid, ran):
    paid.consume()
    with app.connect() as connection:
        paid.push_in(connection, 1)
        assert paid.size() == QueueSize(0, 0, 0, 0)
        connection.commit()
    until(lambda: ran == [1])


def test_connection_block_and_scoped_session_are_transactions(app, paid, ran):
    with app.begin() as connection:
        paid.push_in(connection, 1)
    with sessionmaker(app).begin() as session:
        paid.push_in(session, 2)
    scoped = scoped_session(sessionmaker(app))
    paid.push_in(scoped, 3)
    scoped.commit()
    scoped.remove()
    paid.consume()
    until(lambda: sorted(ran) == [1, 2, 3])


def test_one_call_is_controlled_as_with_publish(app, paid, url, ran):
    @task_deco("seen", broker_kind="sqlalchemy", broker_url=url, concurrent_num=1)
    def seen(n):
        ran.append((n, current.task_id, current.headers.get("by")))

    past, later = datetime.now() - timedelta(seconds=5), datetime.now() + timedelta(hours=1)
    with Session(app) as session:
        assert seen.publish_in(session, {"n": 1}, task_id="one", headers={"by": "me"}) == "one"
        seen.publish_in(session, b'{"n": 2}', task_id="two", priority=9)
        seen.publish_in(session, {"n": 3}, task_id="three", eta=past)
        seen.publish_in(session, {"n": 4}, expires=past)
        seen.publish_in(session, {"n": 5}, countdown=3600)
        seen.publish_in(session, {"n": 6}, eta=later)
        session.commit()
    assert seen.size() == QueueSize(4, 2, 0, 0)
    seen.consume()
    until(lambda: len(ran) == 3 and seen.size() == QueueSize(0, 2, 0, 0))
    assert ran == [(2, "two", None), (3, "three", None), (1, "one", "me")]
    with Session(app) as session, pytest.raises(ArgumentError, match="priority=10"):
        seen.publish_in(session, {"n": 7}, priority=10)
    for name in ("countdwn", "args", "task"):
        with Session(app) as session, pytest.raises(ArgumentError, match=f"option {name!r} of one"):
            seen.publish_in(session, {"n": 7}, **{name: 1})
        with pytest.raises(ArgumentError, match=f"option {name!r} of one"):
            asyncio.run(seen.apublish_in(object(), {"n": 7}, **{name: 1}))


def test_delayed_message_runs_when_it_is_due(app, paid, ran):
    paid.consume()
    with Session(app) as session:
        paid.publish_in(session, {"n": 1}, countdown=0.1)
        session.commit()
    until(lambda: ran == [1])


def test_result_is_found_by_the_id_after_the_commit(app, paid):
    paid.consume()
    with Session(app) as session:
        result = default_engine().result(paid.push_in(session, 1), paid.options)
        assert result.status == "pending"
        session.commit()
    assert result.get(20) == 2


def test_arguments_are_checked_before_anything_is_stored(app, paid):
    with Session(app) as session:
        with pytest.raises(ArgumentError):
            paid.push_in(session, 1, 2)
        session.commit()
    assert paid.size() == QueueSize(0, 0, 0, 0)


def test_tables_are_made_apart_from_the_transaction(app, paid):
    """Which is rolled back, and has read before."""
    with Session(app) as session:
        session.scalar(select(func.count()).select_from(ORDERS))
        paid.push_in(session, 1)
        session.rollback()
        assert paid.size() == QueueSize(0, 0, 0, 0)
        paid.push_in(session, 2)
        session.commit()
    assert paid.size() == QueueSize(1, 0, 0, 0)


def test_run_pushes_what_its_transaction_commits(app, paid, url, ran):
    """Attempts that roll back push nothing, and no id is given twice."""
    ids = []

    @task_deco("buy", broker_kind="sqlalchemy", broker_url=url, max_retry_times=2)
    def buy(n):
        with Session(app) as session:
            ids.append(paid.push_in(session, n))
            if len(ids) == 1:
                raise Retry(delay=0)
            session.commit()

    paid.consume()
    buy.consume()
    buy.push(7)
    until(lambda: ran == [7])
    assert len(set(ids)) == 2


def test_connection_that_commits_by_itself_is_refused(url, paid):
    app = app_engine(url, isolation_level="AUTOCOMMIT")
    with Session(app) as session, pytest.raises(ConfigurationError, match="by itself"):
        paid.push_in(session, 1)
    app.dispose()
    assert paid.size() == QueueSize(0, 0, 0, 0)


def test_transaction_of_another_product_is_refused(product, request, tmp_path, paid):
    other = request.getfixturevalue("postgresql_url") if product == "sqlite" else "sqlite://"
    app = app_engine(other)
    with Session(app) as session, pytest.raises(ConfigurationError, match="the queue is in"):
        paid.push_in(session, 1)
    app.dispose()
    assert paid.size() == QueueSize(0, 0, 0, 0)


@pytest.mark.parametrize("other", ["sqlite://", "sqlite:///{}/other.sqlite"])
def test_transaction_of_another_file_is_refused(tmp_path, other):
    @task_deco("f", broker_kind="sqlalchemy", broker_url=f"sqlite:///{tmp_path}/app.sqlite")
    def f(n):
        pass

    app = app_engine(other.format(tmp_path))
    with Session(app) as session, pytest.raises(ConfigurationError, match="the queue is in"):
        f.push_in(session, 1)
    app.dispose()
    assert f.size() == QueueSize(0, 0, 0, 0)


def test_transaction_of_another_database_of_the_server_is_refused(postgresql_server, home):
    @task_deco("f", broker_kind="sqlalchemy", broker_url=home)
    def f(n):
        pass

    app = app_engine(postgresql_server)
    with app.connect() as connection, pytest.raises(ConfigurationError) as caught:
        f.push_in(connection, 1)
    assert postgresql_server.rpartition("/")[2] in str(caught.value)
    assert home.rpartition("/")[2] in str(caught.value)
    app.dispose()


def test_what_is_no_transaction_is_refused(app, paid):
    for given in (app, object(), None, "postgresql://x"):
        with pytest.raises(ArgumentError, match="no transaction: give a Session"):
            paid.push_in(given, 1)
    with Session() as unbound, pytest.raises(ConfigurationError, match="bind_arguments"):
        paid.push_in(unbound, 1)
    with Session(app) as session, pytest.raises(ArgumentError, match="awaited"):
        asyncio.run(paid.apush_in(session, 1))


def test_broker_without_transactions_is_named():
    @task_deco("in_memory", broker_kind="memory")
    def f(n):
        pass

    with Session() as session, pytest.raises(ConfigurationError, match="'in_memory'.*sqlalchemy"):
        f.push_in(session, 1)


def test_file_whose_tables_cannot_be_made_now_says_so(tmp_path):
    app = app_engine(f"sqlite:///{tmp_path}/app.sqlite")
    ORDERS.create(app)
    transactions = SqliteBroker(f"{tmp_path}/app.sqlite", patience=0.05).transactions
    with Session(app) as session:
        order(session, 1)
        with pytest.raises(Unavailable, match="make them before"):
            transactions.publish(session, [Outgoing("q", "id", b"{}")])
        session.rollback()
        transactions.publish(session, [Outgoing("q", "id", b"{}")])
    app.dispose()


def test_session_that_has_committed_to_a_file_wakes_who_waits(tmp_path, monkeypatch):
    """At the end of its whole transaction, not of a savepoint; and for one queue of two."""
    monkeypatch.setattr(sqlite, "LOOK", 600.0)
    rung, broker = [], SqliteBroker(f"{tmp_path}/app.sqlite")
    app = app_engine(f"sqlite:///{tmp_path}/app.sqlite")
    broker.check()
    woken, sub = threading.Event(), broker.subscribe("q", lease=60)
    ring = broker.file.wakeups.ring
    monkeypatch.setattr(broker.file.wakeups, "ring", lambda *told: (rung.append(told), ring(*told)))

    def wait():
        sub.wait(600)
        woken.set()

    threading.Thread(target=wait, daemon=True).start()
    with Session(app) as session:
        for n in range(2):
            with session.begin_nested():
                broker.transactions.publish(session, [Outgoing("q", f"{n}", b"{}")])
        assert rung == []
        session.commit()
        assert rung == [("q", 2)]
        session.commit()
        assert rung == [("q", 2)]
    assert woken.wait(20)
    assert len(sub.fetch(10, 1 << 20)) == 2
    sub.close()
    app.dispose()


# ---------------------------------------------------------------- PostgreSQL


@pytest.fixture
def patient(monkeypatch):
    """Who waits does not look by himself."""
    monkeypatch.setattr(sql, "LOOK", 600.0)


@pytest.fixture
def broker(home):
    broker = sql.SqlBroker(home)
    yield broker
    broker.close()


def waiting(broker, queue="q"):
    """Start somebody who waits in a queue; return what is set once he has been woken."""
    woken, sub = threading.Event(), broker.subscribe(queue, lease=60)

    def wait():
        sub.wait(600)
        sub.close()
        woken.set()

    threading.Thread(target=wait, daemon=True).start()
    sql_text = "SELECT count(*) FROM @waiter WHERE queue = %(queue)s"
    asked = broker.database.sql(sql_text), {"queue": queue}
    until(lambda: broker.database.rows(*asked) == [(1,)])
    return woken


def test_commit_notifies_who_waits(patient, broker, home):
    app = app_engine(home)
    woken = waiting(broker)
    with Session(app) as session:
        broker.transactions.publish(session, [Outgoing("q", "1", b"{}")])
        session.rollback()
        assert not woken.is_set()
        broker.transactions.publish(session, [Outgoing("q", "2", b"{}")])
        session.commit()
    assert woken.wait(20)
    app.dispose()


def test_open_transaction_keeps_nobody_from_being_woken(patient, broker, home):
    """By others, and from going."""
    app = app_engine(home)
    woken = waiting(broker)
    with Session(app) as session:
        broker.transactions.publish(session, [Outgoing("q", "1", b"{}")])
        broker.publish([Outgoing("q", "2", b"{}")])
        assert woken.wait(20)
        [only] = broker.subscribe("q", lease=60).fetch(10, 1 << 20)
        assert only.id == "2"
        session.rollback()
    app.dispose()


def test_prepared_transaction_notifies_nobody(broker, home):
    """PostgreSQL would refuse to prepare it."""
    app, sent = app_engine(home), []
    event.listen(app, "before_cursor_execute", lambda *told: sent.append(told[2]))
    with app.connect() as connection:
        with connection.begin_twophase() as transaction:
            broker.transactions.publish(connection, [Outgoing("q", "1", b"{}")])
            transaction.rollback()
        assert sum("INSERT" in text for text in sent) == 1
        assert not any("pg_notify" in text for text in sent)
        broker.transactions.publish(connection, [Outgoing("q", "2", b"{}")])
        assert any("pg_notify" in text for text in sent)
    app.dispose()


def test_tables_are_found_in_a_schema_of_any_name(home):
    place = sql.SqlBroker(f"{home}?schema=odd%3Aone")
    app = app_engine(home)
    with Session(app) as session:
        place.transactions.publish(session, [Outgoing("q", "1", b"{}")])
        session.commit()
    assert place.size("q") == QueueSize(1, 0, 0, 0)
    place.close()
    app.dispose()


@pytest.fixture
def clerk(broker):
    """A user who may write messages, and see who waits."""
    name = f"fsdf_clerk_{os.getpid()}"
    broker.check()
    for statement in (
        f"CREATE ROLE {name} LOGIN",
        f"GRANT USAGE ON SCHEMA public TO {name}",
        f"GRANT INSERT ON fsdf_message TO {name}",
        f"GRANT SELECT ON fsdf_waiter TO {name}",
    ):
        broker.database.rows(statement, {})
    yield name
    broker.database.rows(f"DROP OWNED BY {name}", {})
    broker.database.rows(f"DROP ROLE {name}", {})


def test_user_with_another_path_stores_by_rights_on_two_tables(broker, clerk, home):
    of_clerk = make_url(home).set(username=clerk)
    app = app_engine(of_clerk, connect_args={"options": "-c search_path=elsewhere"})
    with Session(app) as session:
        broker.transactions.publish(session, [Outgoing("q", "1", b"{}")])
        session.commit()
    assert broker.size("q") == QueueSize(1, 0, 0, 0)
    app.dispose()


def test_due_is_counted_from_the_statement_not_from_the_transactions_begin(broker, home):
    app = app_engine(home)
    with Session(app) as session:
        began = session.scalar(text("SELECT extract(epoch FROM now())::float8"))
        broker.transactions.publish(session, [Outgoing("q", "1", b"{}", delay=100.0)])
        session.commit()
    [(due,)] = broker.database.rows(broker.database.sql("SELECT due FROM @message"), {})
    assert due > began + 100.0  # which it would be exactly
    app.dispose()


def test_tables_that_were_dropped_are_made_for_the_next_transaction(broker, home):
    app = app_engine(home)
    with Session(app) as session:
        broker.transactions.publish(session, [Outgoing("q", "1", b"{}")])
        session.commit()
        for table in ("message", "version"):
            broker.database.rows(broker.database.sql(f"DROP TABLE @{table}"), {})
        with pytest.raises(Exception, match="fsdf_message"):
            broker.transactions.publish(session, [Outgoing("q", "2", b"{}")])
        session.rollback()
        broker.transactions.publish(session, [Outgoing("q", "3", b"{}")])
        session.commit()
    assert broker.size("q") == QueueSize(1, 0, 0, 0)
    app.dispose()


def async_engine(url):
    return create_async_engine(make_url(url).set(drivername="postgresql+psycopg"))


def test_sessions_and_connections_of_asyncio_are_awaited(home, ran):
    @task_deco("later", broker_kind="sqlalchemy", broker_url=home)
    def later(n):
        ran.append(n)

    async def use():
        engine = async_engine(home)
        async with AsyncSession(engine) as session:
            await later.apush_in(session, 1)
            await session.rollback()
            await later.apublish_in(session, {"n": 2}, priority=9)
            await session.commit()
            with pytest.raises(ArgumentError, match="await task.apush_in"):
                later.push_in(session, 3)
        async with engine.begin() as connection:
            await later.apush_in(connection, 4)
        scoped = async_scoped_session(async_sessionmaker(engine), asyncio.current_task)
        await later.apush_in(scoped, 5)
        await scoped.commit()
        await scoped.remove()
        await engine.dispose()

    asyncio.run(use())
    later.consume()
    until(lambda: sorted(ran) == [2, 4, 5])
