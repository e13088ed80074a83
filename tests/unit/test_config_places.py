"""One rule says where the configuration file is found, however a program was started."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers import BOUND

from fsdf_engine import frame_file
from fsdf_engine.cli import main
from fsdf_engine.config import Config

ROOT = Path(frame_file.__file__).parent.parent
ASK = "from fsdf_engine.config import Config; print(Config()['REDIS_URL'])"
POSIX = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")


@pytest.fixture
def project(tmp_path):
    """A project with its file, a package in it, and a tool of another environment."""
    project = tmp_path / "project"
    (project / "shop").mkdir(parents=True)
    (project / frame_file.NAME).write_text("REDIS_URL = 'redis://found/1'")
    (project / "ask.py").write_text(ASK)
    (project / "shop" / "__init__.py").touch()
    (project / "shop" / "ask.py").write_text(ASK)
    (project / "test_ask.py").write_text(f"def test_ask():\n    {ASK}\n")
    tool = tmp_path / "other" / "site-packages" / "server"
    tool.mkdir(parents=True)
    (tool / "__main__.py").write_text(f"import os, sys\n{ASK}")
    (tool / frame_file.NAME).write_text("REDIS_URL = 'redis://of-the-tool/1'")
    return project


def ask(command, cwd, text=None):
    """Return what a program says that is started so."""
    done = subprocess.run(
        command, cwd=cwd, input=text, capture_output=True, text=True, timeout=BOUND, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.stdout


WAYS = {
    "a script": ["ask.py"],
    "a module": ["-m", "shop.ask"],
    "a command": ["-c", ASK],
    "tests": ["-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "test_ask.py"],
    "a server": ["../other/site-packages/server/__main__.py"],
}


@pytest.mark.parametrize("way", WAYS)
def test_file_in_the_current_folder_is_found_by_every_way_to_start(project, way):
    assert "redis://found/1" in ask([sys.executable, *WAYS[way]], project)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("a script", "a module")])
def test_file_in_the_root_is_found_by_every_way_to_start(project, way):
    (project / "pyproject.toml").touch()
    (project / "deep" / "er").mkdir(parents=True)
    given = [part.replace("..", "../../..") for part in WAYS[way]]
    given = [part.replace("test_ask.py", "../../test_ask.py") for part in given]
    assert "redis://found/1" in ask([sys.executable, *given], project / "deep" / "er")


def test_file_is_found_where_a_program_is_typed_in(project):
    assert "redis://found/1" in ask([sys.executable, "-i", "-q"], project, ASK + "\n")


def test_file_beside_the_script_is_stronger_than_the_current_folders(project, tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    (here / frame_file.NAME).write_text("REDIS_URL = 'redis://here/1'")
    assert "redis://found/1" in ask([sys.executable, str(project / "ask.py")], here)
    assert "redis://here/1" in ask([sys.executable, "-c", ASK], here)


def test_script_that_a_worker_starts_has_a_folder_of_its_own(project, tmp_path, monkeypatch):
    monkeypatch.setenv(frame_file.START_FOLDER, str(tmp_path))
    (tmp_path / frame_file.NAME).write_text("REDIS_URL = 'redis://of-the-worker/1'")
    assert "redis://found/1" in ask([sys.executable, str(project / "ask.py")], "/")
    assert "redis://of-the-worker/1" in ask([sys.executable, "-c", ASK], "/")


def test_what_init_wrote_is_what_commands_beside_it_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    path = tmp_path / frame_file.NAME
    path.write_text(path.read_text() + "REDIS_URL = 'redis://found/1'\nSQLITE_PATH = 'q.sqlite'\n")
    monkeypatch.delenv("FSDF_SQLITE_PATH")
    push = "from fsdf_engine import get_publisher\nget_publisher('q').push(a=1)"
    (tmp_path / "ask.py").write_text(f"{ASK}\n{push}")
    (tmp_path / "test_ask.py").write_text(f"def test_ask():\n    {ASK}\n")
    for way in ("a script", "a command", "tests"):
        assert "redis://found/1" in ask([sys.executable, *WAYS[way]], tmp_path)
    fsdf = [sys.executable, "-m", "fsdf_engine.cli"]
    shown = ask([*fsdf, "config"], tmp_path)
    assert "redis://found/1" in shown
    assert ask([*fsdf, "size", "q"], tmp_path).split()[-4:] == ["1", "0", "0", "0"]
    assert (tmp_path / "q.sqlite").exists()


@POSIX
def test_init_says_that_a_file_in_a_folder_for_all_is_not_trusted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    previous = os.umask(0)
    try:
        assert main(["init"]) == 0
    finally:
        os.umask(previous)
    path = tmp_path / frame_file.NAME
    assert not path.stat().st_mode & stat.S_IWOTH
    assert capsys.readouterr().err == ""
    path.unlink()
    tmp_path.chmod(0o777)
    assert main(["init"]) == 0
    assert "other users can write its folder" in capsys.readouterr().err


def test_config_shows_the_files_that_were_looked_for(project, monkeypatch, capsys):
    (project / "setup.py").touch()
    monkeypatch.chdir(project / "shop")
    assert main(["config"]) == 0
    table = capsys.readouterr().out.partition("\n\n")[2].splitlines()
    shown = [line.split(maxsplit=1) for line in table if str(project) in line]
    assert [line[0] for line in shown] == [
        str(project / "shop" / frame_file.NAME), str(project / frame_file.NAME),
    ]  # fmt: skip
    assert shown[0][1].split("  ") == ["the current folder", "not there"]
    assert shown[1][1].split("  ") == ["the project's root", "read"]


def test_config_shows_what_is_wrong_among_what_is_right(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FSDF_LEASE", "soon")
    assert main(["config"]) == 2
    told = capsys.readouterr().out.splitlines()
    [wrong] = [line.split(maxsplit=2) for line in told if line.startswith("LEASE")]
    assert wrong[1] == "(wrong)"
    assert wrong[2].startswith("LEASE is 'soon' (environment FSDF_LEASE): must be seconds between")
    assert any(line.startswith("REDIS_URL") for line in told)


@pytest.mark.parametrize("mark", frame_file.MARKS)
def test_root_is_the_nearest_folder_with_a_mark(tmp_path, mark):
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (tmp_path / "a" / mark).mkdir()
    assert frame_file.project_root(deep) == tmp_path / "a"


def test_root_without_a_mark_is_where_the_file_is(tmp_path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (tmp_path / frame_file.NAME).touch()
    assert frame_file.project_root(deep) == tmp_path


@pytest.mark.parametrize("scheme", ["scripts", "purelib", "stdlib"])
def test_programs_that_are_installed_are_no_start_scripts(scheme, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    installed = Path(sysconfig.get_path(scheme)) / "anything.py"
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(installed), raising=False)
    assert [file.why for file in frame_file.look(None)][0] == "the current folder"
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "mine.py"))
    assert [file.why for file in frame_file.look(None)][0] == "the start script's folder"


@POSIX
@pytest.mark.parametrize("what", ["file", "folder"])
def test_file_in_the_current_folder_that_anyone_can_write_is_not_run(
    project, monkeypatch, caplog, what
):
    monkeypatch.chdir(project)
    path = project / frame_file.NAME if what == "file" else project
    path.chmod(path.stat().st_mode | stat.S_IWOTH)
    config = Config()
    assert config["REDIS_URL"] == "redis://127.0.0.1:6379/0"
    assert "was not read: other users can write it" in caplog.text.replace("its folder", "it")
    assert config.files()[0].state.startswith("not read: other users can write")


@POSIX
def test_file_of_another_user_in_a_folder_for_all_is_not_run(project, monkeypatch, caplog):
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    monkeypatch.chdir(project)
    project.chmod(0o1777)  # as /tmp
    os.chown(project / frame_file.NAME, 12345, -1)
    assert Config()["REDIS_URL"] == "redis://127.0.0.1:6379/0"
    assert "was not read" in caplog.text


def test_deleted_current_folder_is_no_error(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert Config(folder=tmp_path)["LEASE"] == 15.0
