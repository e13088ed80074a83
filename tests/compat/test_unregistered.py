"""A worker that is told nothing but the broker and the queue runs tasks that it never imported."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from helpers import BOUND

from fsdf_compat import Celery
from fsdf_compat.exceptions import NotRegistered

ROOT = Path(__file__).parent.parent.parent
APP = """
from fsdf_compat import Celery
app = Celery({main!r}, broker={url!r}, backend={backend!r})
"""
TASK = """
@app.task{options}
def {function}(x, y=1):
    return [x + y, __name__, __file__]
"""


@pytest.fixture(params=["redis", "sqlite"])
def places(request, tmp_path):
    """A broker and a result backend, which tasks are called by."""
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        return url, url
    return f"sqla+sqlite:///{tmp_path}/queue.db", f"db+sqlite:///{tmp_path}/results.db"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "my project"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def write(root, places):
    """Write a file of the project; by itself one that has a task."""

    def write(path, function="add", main="elsewhere", options="", text=""):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        url, backend = places
        head = APP.format(main=main, url=url, backend=backend)
        file.write_text(text or head + TASK.format(function=function, options=options))
        return str(file)

    return write


@pytest.fixture
def bare(root, places, run_worker):
    """Start a worker that knows the broker, the backend and the folder; return a client."""
    url, backend = places
    client = Celery("client", broker=url, backend=backend, set_as_current=False)

    def start(*arguments):
        pool = () if "-P" in arguments else ("-P", "threads")
        where = "--workdir", str(root), "-b", url, "--result-backend", backend
        run_worker(*where, "worker", "-l", "INFO", "-c", "2", *pool, *arguments)
        return client

    yield start
    client.close()


def test_tasks_of_irregular_folders_and_names_are_found(write, bare):
    files = {
        "deep.er.tasks.add": write("deep/er/tasks.py"),
        "été.größe": write("été.py", "größe"),
        "其他.名字": write("jobs/named.py", "named", options="(name='其他.名字')"),
        "with-dash.add": write("with-dash.py"),
        "package.add": write("package/__init__.py"),
    }
    client = bare()
    for name, file in files.items():
        total, _, where = client.send_task(name, (1,), {"y": 2}).get(timeout=BOUND)
        assert (total, os.path.realpath(where)) == (3, os.path.realpath(file))


def test_a_task_of_a_script_that_is_run_is_found(root, write, bare):
    write("script.py", main="__main__")
    text = (root / "script.py").read_text()
    text += textwrap.dedent("""
        if __name__ == "__main__":
            print(add.name, add.delay(2).get(timeout=20)[0])
    """)
    (root / "script.py").write_text(text)
    bare()
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=root, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, text=True, timeout=BOUND,
    )  # fmt: skip
    assert done.stdout.split() == ["__main__.add", "3"]


def test_what_could_be_a_strangers_is_not_imported(root, write, bare, tmp_path):
    evil = "open({!r}, 'w')\n" + TASK.replace("@app.task{options}", "@app.task")
    mark = str(tmp_path / "mark")
    text = evil.format(mark, function="add")
    write("uploads/tasks.py", text=text)
    (root / "uploads").chmod(0o777)
    outside = tmp_path / "outside.py"
    outside.write_text(text)
    (root / "linked.py").symlink_to(outside)
    write("venv/pyvenv.cfg", text="home = /")
    write("venv/lib/inner.py", text=text)
    write("open.py", text=text)
    (root / "open.py").chmod(0o666)
    client = bare()
    for name in ("uploads.tasks.add", "linked.add", "venv.lib.inner.add", "inner.add", "open.add"):
        with pytest.raises(NotRegistered):
            client.send_task(name, (1,)).get(timeout=BOUND)
    assert not os.path.exists(mark)


def test_two_files_with_one_name_and_an_import_that_fails_are_told_and_no_message_is_lost(
    write, bare
):
    first, second = write("a/tasks.py"), write("b/tasks.py")
    write("broken.py", text="import no_such_module\n@app.task\ndef add(x): pass\n")
    write("fine.py")
    client = bare()
    with pytest.raises(NotRegistered) as told:
        client.send_task("tasks.add", (1,)).get(timeout=BOUND)
    stands = f"the task 'tasks.add' stands in {first} and in {second}; rename one"
    assert str(told.value) == f"'tasks.add': {stands}"
    with pytest.raises(NotRegistered, match="'broken.add': its import failed: .*no_such_module"):
        client.send_task("broken.add", (1,)).get(timeout=BOUND)
    assert client.send_task("fine.add", (1,)).get(timeout=BOUND)[0] == 2


def test_a_package_runs_its_init_once_and_only_when_its_task_is_wanted(write, bare, tmp_path):
    mark = tmp_path / "mark"
    write("pkg/__init__.py", text=f"open({str(mark)!r}, 'a').write('x')\n")
    write("pkg/tasks.py")
    client = bare()
    assert not mark.exists()
    for _ in range(3):
        client.send_task("pkg.tasks.add", (1,)).get(timeout=BOUND)
    assert mark.read_text() == "x"


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_other_pools_import_where_the_code_runs(write, bare, pool):
    write("tasks.py")
    client = bare("-P", pool)
    sent = [client.send_task("tasks.add", (n,)) for n in range(4)]
    assert [each.get(timeout=BOUND)[0] for each in sent] == [1, 2, 3, 4]


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_the_log_says_what_is_imported_and_that_its_message_was_received_once(
    root, write, places, run_worker, pool
):
    write("jobs/late.py")
    url, backend = places
    where = "--workdir", str(root), "-b", url, "--result-backend", backend
    worker = run_worker(*where, "worker", "-l", "INFO", "-c", "1", "-P", pool)
    client = Celery("client", broker=url, backend=backend, set_as_current=False)
    sent = client.send_task("jobs.late.add", (1,))
    assert sent.get(timeout=BOUND)[0] == 2
    client.close()
    file = os.path.join("jobs", "late.py")
    worker.says(f"imported {file} for task jobs.late.add")
    worker.says(f"Task jobs.late.add[{sent.id}] succeeded")
    said = "".join(worker.said)
    assert said.count(f"Task jobs.late.add[{sent.id}] received") == 1
    assert said.count(f"imported {file}") == 1
