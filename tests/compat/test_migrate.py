"""`fsdf migrate check`."""

from __future__ import annotations

import textwrap

import pytest

from fsdf_compat._migrate.report import main


@pytest.fixture
def project(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    write.root = tmp_path
    return write


def said(project, capsys, *more):
    code = main([str(project.root), *more])
    return code, capsys.readouterr().out


def test_plain_project_has_nothing_to_tell(project, capsys):
    project("proj/tasks.py", """
        from celery import shared_task
        from celery.utils.log import get_task_logger

        @shared_task(bind=True, max_retries=3)
        def add(self, x, y):
            return x + y

        add.delay(1, 2)
        add.apply_async((1, 2), countdown=3, queue="math")
    """)  # fmt: skip
    project("Procfile", "worker: celery -A proj worker -l INFO -c 4\n")
    code, out = said(project, capsys)
    assert code == 0
    assert out.strip().endswith("0 differs, 0 not there")


def test_what_is_not_there_is_told_with_its_place_and_page(project, capsys):
    project("proj/app.py", """
        from celery import Celery
        from celery.events.state import State

        app = Celery("proj", broker="amqp://guest@localhost//")
        app.conf.worker_send_task_events = True
        CELERY_TASK_COMPRESSION = "gzip"
    """)  # fmt: skip
    project("docker/Dockerfile", 'CMD ["celery", "-A", "proj", "worker", "--autoscale=10,3"]\n')
    code, out = said(project, capsys)
    assert code == 1
    assert "proj/app.py:3: import celery.events.state.State: events are not sent yet" in out
    assert "proj/app.py:5: broker amqp" in out
    assert "proj/app.py:6: setting worker_send_task_events" in out
    assert "proj/app.py:7: setting task_compression" in out
    assert "docker/Dockerfile:1: command --autoscale" in out
    assert "(differences.md#" in out


def test_nothing_of_the_project_is_imported(project, capsys):
    project("proj/bomb.py", """
        import celery
        raise SystemExit("imported")
    """)  # fmt: skip
    project("proj/broken.py", "def (:\n")
    assert said(project, capsys)[0] == 0


def test_old_names_of_settings_are_known(project, capsys):
    project("celeryconfig.py", """
        BROKER_URL = "sqs://"
        CELERY_TASK_SERIALIZER = "pickle"
    """)  # fmt: skip
    code, out = said(project, capsys)
    assert code == 1
    assert "celeryconfig.py:2: broker sqs" in out
    assert "celeryconfig.py:3: setting task_serializer" in out


def test_settings_in_dicts_and_defaults_of_the_environment_are_read(project, capsys):
    project("site/settings.py", """
        CELERY_BROKER_URL = env("BROKER", default="amqp://localhost")
        OTHERS = {"CELERY": {"task_compression": "gzip", "broker_url": "sqs://"}}
    """)  # fmt: skip
    code, out = said(project, capsys)
    assert code == 1
    assert "site/settings.py:2: broker amqp" in out
    assert "site/settings.py:3: setting task_compression" in out
    assert "site/settings.py:3: broker sqs" in out


def test_path_that_is_not_there_is_an_error(capsys):
    with pytest.raises(SystemExit):
        main(["/nowhere/at/all"])
    assert "there is no /nowhere/at/all" in capsys.readouterr().err


def test_command_is_part_of_fsdf(project, capsys):
    from fsdf_engine.cli import main as fsdf

    project("tasks.py", "from celery import shared_task\n")
    assert fsdf(["migrate", "check", str(project.root)]) == 0
    assert "0 not there" in capsys.readouterr().out
    assert fsdf(["migrate"]) == 2
    assert capsys.readouterr().err == "usage: fsdf migrate check [PATH]\n"


def test_pages_that_the_table_names_are_there():
    from pathlib import Path

    from fsdf_compat._migrate import table

    guide = Path(__file__).parent.parent.parent / "migration_guide"
    pages = {f.page for each in table._TABLES.values() for f in each.values()}
    for page in pages:
        name, _, anchor = page.partition("#")
        titles = [
            line.strip("# ").lower().replace(" ", "-")
            for line in (guide / name).read_text().splitlines()
            if line.startswith("#")
        ]
        assert anchor in titles
