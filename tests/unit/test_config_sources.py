"""What counts and what is said is the same in every source: files, the environment, code."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fsdf_engine import frame_file
from fsdf_engine.config import KEYS, Config
from fsdf_engine.errors import ConfigurationError

SOURCES = ["file", "environment", "patch", "given"]


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Return a configuration in which one source says `key = value`."""
    monkeypatch.chdir(tmp_path)

    def configured(source, key, value, below=None):
        below = below or {}
        (tmp_path / frame_file.NAME).write_text(
            "\n".join(f"{k} = {v!r}" for k, v in {**below, key: value}.items())
            if source == "file"
            else "\n".join(f"{k} = {v!r}" for k, v in below.items())
        )
        if source == "environment":
            monkeypatch.setenv(f"FSDF_{key}", str(value))
        config = Config({key: value} if source == "given" else {})
        if source == "patch":
            config.patch({key: value})
        return config

    return configured


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("key", [k for k in KEYS if k not in ("SQLITE_PATH", "LOG_FOLDER")])
@pytest.mark.parametrize("empty", ["", "  "])
def test_empty_text_sets_nothing(configured, source, key, empty):
    assert configured(source, key, empty)[key] == KEYS[key].default


@pytest.mark.parametrize("source", ["environment", "patch", "given"])
def test_empty_text_lets_the_next_source_count(configured, source):
    config = configured(source, "REDIS_URL", "", below={"REDIS_URL": "redis://file/1"})
    assert config["REDIS_URL"] == "redis://file/1"


def test_empty_patch_takes_an_earlier_one_back():
    config = Config()
    config.patch({"LEASE": 3})
    config.patch({"LEASE": ""})
    assert (config["LEASE"], config.patches()) == (15.0, {})


@pytest.mark.parametrize("source", SOURCES)
def test_wrong_value_is_an_error_that_names_its_source(configured, source, tmp_path):
    with pytest.raises(ConfigurationError, match="LEASE is 'soon' .*must be seconds") as caught:
        configured(source, "LEASE", "soon")["LEASE"]
    named = {
        "file": str(tmp_path), "environment": "environment FSDF_LEASE",
        "patch": "patch_frame_config", "given": "Config()",
    }  # fmt: skip
    assert named[source] in str(caught.value)


@pytest.mark.parametrize("source", SOURCES)
def test_key_of_a_later_broker_changes_nothing_and_is_told_as_such(configured, source, caplog):
    config = configured(source, "MONGO_CONNECT_URL", "mongodb://:sesame@h")
    assert config["LEASE"] == 15.0
    [record] = caplog.records
    assert "MONGO_CONNECT_URL (of a broker that is not in this version)" in record.getMessage()
    assert "sesame" not in caplog.text
    with pytest.raises(ConfigurationError, match="unknown configuration key"):
        config["MONGO_CONNECT_URL"]


@pytest.mark.parametrize("source", ["patch", "given"])
def test_unknown_key_in_code_is_an_error(configured, source):
    with pytest.raises(ConfigurationError, match="'REDSI_URL'.*did you mean 'REDIS_URL'"):
        configured(source, "REDSI_URL", "redis://h")


@pytest.mark.parametrize("source", ["file", "environment"])
def test_unknown_names_elsewhere_are_one_warning_with_suggestions(
    configured, source, caplog, monkeypatch
):
    config = configured(source, "REDSI_URL", "redis://h", below={"MINE_ALONE": 1})
    if source == "environment":
        monkeypatch.setenv("FSDF_ZZZZ", "1")
        monkeypatch.setenv("FSDF_START_FOLDER", "/")  # this one is ours
    assert config["LEASE"] == config["LEASE"] == 15.0
    texts = [record.getMessage() for record in caplog.records]
    [text] = [text for text in texts if "REDSI" in text]
    assert "did you mean 'REDIS_URL'" in text
    assert "START_FOLDER" not in text
    if source == "environment":
        assert text.endswith(", FSDF_ZZZZ")
    else:
        assert text.endswith("MINE_ALONE, REDSI_URL (did you mean 'REDIS_URL')")
        assert len(texts) == 1


def test_relative_path_in_a_file_starts_at_its_folder(configured, tmp_path, monkeypatch):
    deep = tmp_path / "deep"
    deep.mkdir()
    config = configured("file", "SQLITE_PATH", "q.sqlite")
    monkeypatch.delenv("FSDF_SQLITE_PATH")
    monkeypatch.chdir(deep)
    assert config["SQLITE_PATH"] == str(tmp_path / "q.sqlite")


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_reading_the_configuration_tells_has_the_configured_form(tmp_path, form):
    (tmp_path / "distributed_frame_config.py").write_text(f"REDSI_URL = 1\nLOG_FORMAT = {form!r}\n")
    (tmp_path / "main.py").write_text(
        "from fsdf_engine import task_deco\n"
        "work = task_deco('told', broker_kind='memory')(print)\n"
        "work.push()\n"
        "work.consume().stop()\n"
    )
    command = [sys.executable, "main.py"]
    told = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stderr
    lines = [line for line in told.splitlines() if "REDSI_URL" in line]
    assert len(lines) == 1
    if form == "json":
        assert {json.loads(line)["level"] for line in told.splitlines()} == {"INFO", "WARNING"}
    else:
        assert " WARNING fsdf.config " in lines[0]


def test_a_wrong_format_of_logs_hides_no_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("FSDF_LOG_FORMAT", "yaml")
    monkeypatch.setenv("FSDF_ZZZZ", "1")
    monkeypatch.setattr("fsdf_engine.config._log.hasHandlers", lambda: False)
    assert Config(folder=tmp_path)["LEASE"] == 15.0
    assert "FSDF_ZZZZ" in caplog.text
