"""Results in databases, on real servers: db+postgresql://, db+mysql://, db+sqlite:///."""

from __future__ import annotations

import socket
import threading
from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from helpers import BOUND, until

from fsdf_compat import Celery, chord, group
from fsdf_compat.backends.database import DatabaseBackend, driver
from fsdf_compat.backends.database.models import Task, TaskSet
from fsdf_compat.contrib.testing.worker import start_worker
from fsdf_compat.exceptions import ImproperlyConfigured
from fsdf_compat.result import GroupResult

FORMS = {  # how a project names its database, and the fixture that has one
    "db+postgresql": "postgresql_url",
    "db+postgresql+psycopg2": "postgresql_url",
    "db+mysql": "mysql_url",
    "db+mysql+pymysql": "mysql_url",
    "db+sqlite": None,
}


def results_at(request, form):
    """Return `result_backend`: an empty database."""
    if FORMS[form] is None:
        return f"{form}:///{request.getfixturevalue('tmp_path')}/results.db"
    return f"{form}://{request.getfixturevalue(FORMS[form]).partition('://')[2]}"


@pytest.fixture
def new_app(quick_looks):
    made = []

    def new(backend, **settings):
        app = Celery("databases", broker="memory://", backend=backend, set_as_current=False)
        app.conf.update(settings)
        made.append(app)
        return app

    yield new
    for app in made:
        app.close()
    for cls in Task, TaskSet:  # they are the process's: other tests have the usual tables
        cls.configure()


@pytest.mark.parametrize("form", [form for form in FORMS if form != "db+mysql+pymysql"])
def test_results_are_in_every_database_as_in_redis(request, new_app, form):
    app = new_app(results_at(request, form), result_chord_retry_interval=0.05)
    reads = new_app(app.conf.result_backend)  # another program: nothing is in its cache
    told, go_on = threading.Event(), threading.Event()

    @app.task(name="same", shared=False)
    def same(x):
        return x

    @app.task(name="fail", shared=False)
    def fail():
        raise LookupError("not there", 7)

    @app.task(name="total", shared=False)
    def total(numbers):
        return sum(numbers)

    @app.task(name="quiet", shared=False, ignore_result=True)
    def quiet():
        return 1

    @app.task(name="slow", bind=True, shared=False)
    def slow(self):
        self.update_state(state="HALF", meta={"done": 50})
        told.set()
        assert go_on.wait(BOUND)

    with start_worker(app, concurrency=2, pool="threads", perform_ping_check=False):
        assert same.delay({"é": [1, None]}).get(BOUND) == {"é": [1, None]}

        failed = fail.delay()
        with pytest.raises(LookupError, match="not there"):
            failed.get(BOUND)
        seen = reads.AsyncResult(failed.id)
        assert (seen.state, seen.result.args) == ("FAILURE", ("not there", 7))
        assert "raise LookupError" in seen.traceback

        half = slow.delay()
        assert told.wait(BOUND)
        seen = reads.AsyncResult(half.id)
        assert (seen.state, seen.info) == ("HALF", {"done": 50})
        go_on.set()
        assert half.get(BOUND) is None

        silent = quiet.delay()
        many = group(same.s(n) for n in range(3)).apply_async()
        many.save()
        restored = GroupResult.restore(many.id, app=reads)
        assert restored.get(timeout=BOUND) == [0, 1, 2]
        restored.delete()
        assert GroupResult.restore(many.id, app=new_app(app.conf.result_backend)) is None
        assert chord([same.s(n) for n in range(4)], total.s()).delay().get(BOUND) == 6
        with pytest.raises(Exception, match="not there"):
            chord([same.s(1), fail.s()], total.s()).delay().get(BOUND)

        assert not reads.backend.task_result_exists(silent.id)
        assert reads.backend.task_result_exists(failed.id)
        failed.forget()
        assert reads.AsyncResult(failed.id).state == "PENDING"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_older_than_results_last_is_deleted(request, new_app, form):
    app = new_app(results_at(request, form), result_expires=timedelta(hours=1))
    backend = app.backend
    for id in ("old", "young"):
        backend.store_result(id, 1, "SUCCESS")
        backend.save_group(id, GroupResult(id, [], app=app))
    now = datetime.now(timezone.utc)
    with backend.ResultSession() as session:
        for cls, column in ((backend.task_cls, "task_id"), (backend.taskset_cls, "taskset_id")):
            rows = session.query(cls).filter(getattr(cls, column) == "old")
            rows.update({"date_done": now - timedelta(minutes=61)})
            rows = session.query(cls).filter(getattr(cls, column) == "young")
            rows.update({"date_done": now - timedelta(minutes=59)})
        session.commit()
    backend.cleanup()
    left = [backend.task_result_exists("old"), backend.task_result_exists("young")]
    assert left == [False, True]
    assert backend.get_group_meta("old", cache=False) is None
    assert backend.get_group_meta("young", cache=False)


@pytest.mark.parametrize("form", ["db+postgresql", "db+postgresql+psycopg2"])
def test_times_are_utc_whatever_the_time_zone_of_the_database(request, new_app, form):
    url = results_at(request, form) + "?options=-c%20TimeZone=Asia/Tokyo"
    app = new_app(url)
    app.backend.store_result("id", 1, "SUCCESS")
    done = app.AsyncResult("id").date_done
    assert abs(datetime.now(timezone.utc).replace(tzinfo=None) - done) < timedelta(minutes=5)


def test_tables_have_the_names_and_schemas_that_the_settings_say(new_app, postgresql_url):
    database = sa.create_engine(postgresql_url.replace("postgresql", "postgresql+psycopg", 1))
    with database.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA mine"))
        connection.execute(sa.text("CREATE SCHEMA ours"))
    usual = new_app(f"db+{postgresql_url}")
    usual.backend.store_result("usual", 1, "SUCCESS")
    named = new_app(
        f"db+{postgresql_url}",
        database_table_names={"task": "done", "group": "groups"},
        database_engine_options={"connect_args": {"application_name": "proj"}},
    )
    named.backend.store_result("named", 2, "SUCCESS")
    named.backend.save_group("g", GroupResult("g", [], app=named))
    with named.backend.ResultSession() as session:
        assert session.execute(sa.text("SHOW application_name")).scalar() == "proj"
    placed = new_app(
        f"db+{postgresql_url}", database_table_schemas={"task": "mine", "group": "ours"}
    )
    placed.backend.store_result("placed", 3, "SUCCESS")
    placed.backend.save_group("g", GroupResult("g", [], app=placed))
    with database.connect() as connection:
        ids = {
            table: [*connection.execute(sa.text(f"SELECT {column} FROM {table}")).scalars()]
            for table, column in {
                "celery_taskmeta": "task_id", "done": "task_id", "groups": "taskset_id",
                "mine.celery_taskmeta": "task_id", "ours.celery_tasksetmeta": "taskset_id",
            }.items()
        }  # fmt: skip
    database.dispose()
    assert ids == {
        "celery_taskmeta": ["usual"], "done": ["named"], "groups": ["g"],
        "mine.celery_taskmeta": ["placed"], "ours.celery_tasksetmeta": ["g"],
    }  # fmt: skip


@pytest.mark.parametrize("form", ["db+postgresql", "db+postgresql+psycopg2", "db+mysql"])
@pytest.mark.parametrize("server", ["none", "real"])
def test_a_database_that_lets_nobody_in_is_named_without_its_password(
    request, new_app, form, server
):
    at = "127.0.0.1:1"
    if server == "real":
        at = request.getfixturevalue(FORMS[form]).rpartition("@")[2].partition("/")[0]
    with pytest.raises(sa.exc.OperationalError) as told:
        new_app(f"{form}://nobody:sesame@{at}/there").AsyncResult("id").state
    shown = f"result_backend is {form.partition('+')[2]}://nobody:***@{at}/there"
    assert shown in str(told.value)
    assert "sesame" not in str(told.value)


@pytest.mark.parametrize("form", ["sqla+postgresql", "sqla+mysql"])
def test_queues_in_databases_are_purged_by_the_client_that_is_there(request, new_app, form):
    place = request.getfixturevalue(f"{form.split('+')[1]}_url").partition("://")[2]
    app = new_app("cache+memory://", broker_url=f"{form}://{place}")

    @app.task(shared=False)
    def unasked():
        pass

    for _ in range(2):
        unasked.delay()
    with app.connection_for_write() as connection:
        connection.connect()
    assert [app.control.purge(), app.control.purge()] == [2, 0]


@pytest.mark.parametrize("form", ["db+postgresql", "db+postgresql+psycopg2"])
def test_a_database_that_accepts_and_hangs_is_given_up(new_app, monkeypatch, form):
    monkeypatch.setattr(driver, "CONNECT_TIMEOUT", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app = new_app(f"{form}://127.0.0.1:{silent.getsockname()[1]}/d")
        app.conf.result_backend_max_retries = 0
        with pytest.raises(sa.exc.OperationalError, match="timeout expired"):
            app.AsyncResult("id").state


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("db+postgers://u:sesame@h/d", r"'postgers://u:\*\*\*@h/d' names no database"),
        ("db+postgresql+asyncmy://u:sesame@h/d", "names no database"),
        ("db+mysql+oursql2://u:sesame@h/d", "names no database"),
        (
            "db+mysql+cymysql://u:sesame@h/d",
            r"the client library of mysql\+cymysql:// is not installed \(No module named"
            r""" 'cymysql'\); install it, or say db\+mysql:// and pip install "fsdf\[mysql\]\"""",
        ),
        ("db+oracle://u:sesame@h/d", r"the client library of oracle:// is not installed"),
    ],
)
def test_a_database_without_a_client_is_told_of_at_once(new_app, url, said):
    app = new_app("cache+memory://")
    app.conf.result_backend = url
    with pytest.raises(ImproperlyConfigured, match=said) as told:
        app._get_backend()
    assert "sesame" not in str(told.value)


def test_a_database_that_is_away_for_a_while_costs_no_result_where_it_is_asked_often(
    new_app, own_server, monkeypatch
):
    server = own_server("postgresql")
    app = new_app(f"db+{server.url}", result_backend_max_retries=20)
    begun, go_on, waits = threading.Event(), threading.Event(), threading.Event()
    sleep = DatabaseBackend._sleep
    monkeypatch.setattr(DatabaseBackend, "_sleep", lambda *a: waits.set() or sleep(*a))

    @app.task(shared=False)
    def held():
        begun.set()
        assert go_on.wait(BOUND)
        return "kept"

    with start_worker(
        app, concurrency=1, pool="threads", perform_ping_check=False, loglevel="WARNING"
    ):
        result = held.delay()
        assert begun.wait(BOUND)
        server.kill()
        go_on.set()
        assert waits.wait(BOUND)  # it was asked, and is not there
        server.start()
        assert result.get(BOUND) == "kept"


def test_a_database_that_is_away_is_told_briefly_and_the_message_is_a_dead_letter(
    tmp_path, new_app, caplog
):
    caplog.set_level("WARNING")
    app = new_app(f"db+sqlite:///{tmp_path}/away/results.db", database_create_tables_at_setup=False)
    app.conf.worker_hijack_root_logger = False

    @app.task(name="add", shared=False)
    def add(x, y):
        return x + y

    with start_worker(
        app, pool="threads", concurrency=1, perform_ping_check=False, loglevel="WARNING"
    ):
        sent = add.delay(1, 2)
        until(lambda: "is kept as a dead letter" in caplog.text)
        until(lambda: app.engine.broker("memory", "").dead_letters("celery.flat"))
    retries = [r for r in caplog.records if r.getMessage().startswith("Failed operation _store")]
    chains = [r.exc_text.count("Traceback (most") for r in retries]
    assert len(chains) > 3 and len(set(chains)) == 1
    (told,) = [r for r in caplog.records if "dead letter" in r.getMessage()]
    start = f"Cannot store how task add[{sent.id}] ended: its message is kept as a dead letter:"
    assert told.levelname == "ERROR" and told.getMessage().startswith(start)
    assert "unable to open database file" in told.getMessage()
