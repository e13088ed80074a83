"""Which modules a project's index finds tasks in, and which it leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fsdf_compat._engine import index
from fsdf_compat._engine.index import Ambiguous, Index

TASK = "from celery import shared_task\n@shared_task\ndef {name}(): pass\n"


@pytest.fixture
def root(tmp_path):
    tmp_path.chmod(0o755)
    return tmp_path


def write(root: Path, path: str, text: str = "") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text or TASK.format(name="add"))
    return file


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("@app.task\ndef add(): pass", "proj.add"),
        ("@app.task(bind=True)\nasync def add(self): pass", "proj.add"),
        ("@app.task(name='其他.名')\ndef add(): pass", "其他.名"),
        ("@celery.shared_task()\ndef ünïcode(): pass", "proj.ünïcode"),
        (
            "try:\n  import x\nexcept ImportError:\n  pass\nelse:\n  @task\n  def add(): pass",
            "proj.add",
        ),
        ("if DEBUG:\n  @shared_task\n  def add(): pass", "proj.add"),
        ("class Add(app.Task):\n  name = 'mine'", "mine"),
        ("class Add(BaseTask):\n  pass", "proj.Add"),
    ],
)
def test_a_task_is_found_by_its_name(root, text, name):
    file = write(root, "proj.py", text)
    found = Index(root).find(name)
    assert found is not None
    assert (found.module, found.path) == ("proj", str(file))


@pytest.mark.parametrize(
    "text",
    [
        "def add(): pass",
        "@other\ndef add(): pass",
        "def outer():\n  @app.task\n  def add(): pass",
        "@app.task(name='else')\ndef add(): pass",
        "@app.task\ndef add(",
        "\0",
    ],
)
def test_what_is_no_top_level_task_of_this_name_is_not_found(root, text):
    write(root, "proj.py", text)
    assert Index(root).find("proj.add") is None


def test_a_module_may_begin_at_any_folder_and_the_whole_name_goes_before(root):
    inner = write(root, "my-app/jobs/tasks.py")
    for name in ("my-app.jobs.tasks.add", "jobs.tasks.add", "tasks.add"):
        assert Index(root).find(name).path == str(inner)
    assert Index(root).find("tasks.add").folder == str(root / "my-app" / "jobs")
    outer = write(root, "tasks.py")
    assert Index(root).find("tasks.add").path == str(outer)


def test_a_package_is_named_by_its_folder(root):
    file = write(root, "pkg/__init__.py")
    assert Index(root).find("pkg.add").path == str(file)


def test_a_scripts_task_is_found_by_its_apps_name_and_as_main(root):
    file = write(root, "run.py")
    assert Index(root).find("__main__.add").path == str(file)
    assert Index(root).find("shop.add", main="shop").path == str(file)
    assert Index(root).find("shop.add") is None


def test_two_files_with_one_name_are_an_error_that_names_both(root):
    first, second = write(root, "a/tasks.py"), write(root, "b/tasks.py")
    with pytest.raises(Ambiguous, match=rf"{first}.*{second}"):
        Index(root).find("tasks.add")


def test_what_has_changed_is_read_again_and_nothing_else(root, monkeypatch):
    write(root, "other.py")
    file, known = write(root, "proj.py"), Index(root)
    assert known.find("proj.add")
    read = []
    monkeypatch.setattr(
        index, "_read", lambda path, stamp, real=index._read: read.append(path) or real(path, stamp)
    )
    file.write_text(TASK.format(name="longer_name"))
    assert known.find("proj.longer_name")
    assert read == [str(file)]
    file.unlink()
    assert known.find("proj.longer_name") is None


@pytest.mark.parametrize(
    "folder",
    ["site-packages", "node_modules", "env", ".git", "__pycache__", "uploads"],
)
def test_installed_hidden_and_open_folders_are_left_out(root, folder):
    write(root, f"{folder}/tasks.py")
    (root / "env").mkdir(exist_ok=True)
    (root / "env" / "pyvenv.cfg").write_text("")
    if folder == "uploads":
        (root / folder).chmod(0o777)
    assert Index(root).find("tasks.add") is None


def test_files_that_others_may_write_and_links_are_left_out(root, tmp_path_factory):
    outside = write(tmp_path_factory.mktemp("outside"), "evil.py")
    (root / "linked.py").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    write(root, "open.py").chmod(0o666)
    for name in ("linked.add", "folder.evil.add", "evil.add", "open.add"):
        assert Index(root).find(name) is None


def test_a_root_that_others_may_write_has_nothing(root):
    write(root, "proj.py")
    root.chmod(0o777)
    assert Index(root).find("proj.add") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_strangers_are_left_out_and_those_of_the_roots_owner_are_not(root):
    stranger, owner = write(root, "stranger.py"), write(root, "own.py")
    os.chown(stranger, 4242, -1)
    os.chown(owner, 4343, -1)
    os.chown(root, 4343, -1)
    assert Index(root).find("stranger.add") is None
    assert Index(root).find("own.add").path == str(owner)


def test_a_project_is_read_up_to_a_limit(root, monkeypatch):
    for n in range(4):
        write(root, f"m{n}.py")
    monkeypatch.setattr(index, "FILES", 2)
    known = Index(root)
    assert known.find("m1.add")
    assert known.find("m3.add") is None
    assert known.is_cut
    monkeypatch.setattr(index, "LARGEST", 10)
    assert Index(root).find("m0.add") is None


def test_nothing_is_run(root):
    write(root, "pkg/__init__.py", "raise SystemExit('imported')")
    file = write(root, "pkg/tasks.py", "raise SystemExit('imported')\n" + TASK.format(name="add"))
    assert Index(root).find("pkg.tasks.add").path == str(file)
