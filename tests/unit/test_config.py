"""Where configuration comes from, and what is said when it is wrong."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fsdf_engine import frame_file
from fsdf_engine.cli import settings
from fsdf_engine.config import KEYS, Config, Settings
from fsdf_engine.errors import ConfigurationError
from fsdf_engine.spelling import masked


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project root, a folder for scripts in it, and the current folder deeper still."""
    root = tmp_path / "project"
    (root / "scripts").mkdir(parents=True)
    (root / "src" / "deep").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    monkeypatch.chdir(root / "src" / "deep")
    return root


def configure(folder: Path, text: str) -> Path:
    path = folder / frame_file.NAME
    path.write_text(text)
    return path


def source(config: Config, key: str) -> str:
    return config.find(key).source


def test_every_source_hides_the_weaker_ones(project, monkeypatch):
    config = Config(folder=project / "scripts")
    seen = [(config["LEASE"], source(config, "LEASE"))]
    for step in ("root", "here", "script", "environment", "patch", "given"):
        if step == "root":
            configure(project, "LEASE = 21")
        elif step == "here":
            configure(project / "src" / "deep", "LEASE = 21.5")
        elif step == "script":
            configure(project / "scripts", "LEASE = 22")
        elif step == "environment":
            monkeypatch.setenv("FSDF_LEASE", "23")
        given = {"LEASE": 25} if step == "given" else {}
        config = Config(given, folder=project / "scripts")
        if step in ("patch", "given"):
            config.patch({"LEASE": 24})
        seen.append((config["LEASE"], source(config, "LEASE")))
    assert seen == [
        (15.0, "default"),
        (21.0, str(project / frame_file.NAME)),
        (21.5, str(project / "src" / "deep" / frame_file.NAME)),
        (22.0, str(project / "scripts" / frame_file.NAME)),
        (23.0, "environment FSDF_LEASE"),
        (24.0, "patch_frame_config"),
        (25.0, "given"),
    ]


def test_nothing_is_read_before_the_first_look_up(project, monkeypatch):
    config = Config(folder=project)
    configure(project, "LEASE = 7")
    assert config["LEASE"] == 7.0


def test_file_beside_a_real_start_script_is_found(tmp_path):
    configure(tmp_path, "REDIS_URL = 'redis://beside/1'")
    script = tmp_path / "2 start.py"
    script.write_text("from fsdf_engine.config import Config\nprint(Config()['REDIS_URL'])")
    answer = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd="/", timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(frame_file.__file__).parent.parent)},
    )  # fmt: skip
    assert answer.stdout.strip() == "redis://beside/1"


def test_file_that_changes_the_configuration_itself_does_not_hang(project):
    config = Config(folder=project)
    sys.modules["under_test"] = config  # type: ignore[assignment]
    try:
        configure(
            project,
            "import sys\nconfig = sys.modules['under_test']\n"
            "config.patch({'LEASE': config['LEASE'] + 1})",
        )
        config["REDIS_DB"]
    finally:
        del sys.modules["under_test"]
    assert config["LEASE"] == 16.0


def test_broken_file_is_named_each_time(project):
    path = configure(project, "LEASE = 1 / 0")
    config = Config()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"cannot be read: ZeroDivisionError.*repair"):
            config["LEASE"]
    path.write_text("LEASE = 3")
    assert config["LEASE"] == 3.0


def test_historic_file_is_read_and_what_is_unused_is_named(project, caplog):
    configure(project, "REDIS_HOST = '10.1.1.1'\nNSQD_TCP_ADDRESSES = ['x']\nlower = 1")
    config = Config()
    assert config["REDIS_URL"] == "redis://10.1.1.1:6379/0"
    assert "no configuration keys: NSQD_TCP_ADDRESSES" in caplog.text
    assert settings.explain(config)[-1]["key"] == "NSQD_TCP_ADDRESSES"
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX permissions")
def test_file_that_anyone_can_write_is_not_run(project, caplog):
    path = configure(project, "LEASE = 3")
    path.chmod(path.stat().st_mode | stat.S_IWOTH)
    assert Config()["LEASE"] == 15.0
    assert "other users can write it" in caplog.text


def test_redis_url_is_built_of_its_parts(monkeypatch):
    monkeypatch.setenv("FSDF_REDIS_HOST", "::1")
    monkeypatch.setenv("FSDF_REDIS_PORT", "7000")
    monkeypatch.setenv("FSDF_REDIS_PASSWORD", "p/w@:x")
    monkeypatch.setenv("FSDF_REDIS_DB", "7")
    assert Config()["REDIS_URL"] == "redis://:p%2Fw%40%3Ax@[::1]:7000/7"


def test_redis_url_and_its_parts_compete_by_source(project, monkeypatch):
    monkeypatch.setenv("FSDF_REDIS_URL", "redis://environment/1")
    configure(project, "REDIS_HOST = 'file'")
    config = Config()
    assert config["REDIS_URL"] == "redis://environment/1"
    config.patch({"REDIS_HOST": "patched"})
    assert config["REDIS_URL"] == "redis://patched:6379/0"
    assert source(config, "REDIS_URL") == "patch_frame_config"
    config.patch({"REDIS_URL": "redis://whole/2"})
    assert config["REDIS_URL"] == "redis://whole/2"


def test_rabbitmq_url_is_built_of_its_parts(project, monkeypatch):
    assert Config()["RABBITMQ_URL"] == "amqp://127.0.0.1:5672/"
    monkeypatch.setenv("FSDF_RABBITMQ_HOST", "::1")
    monkeypatch.setenv("FSDF_RABBITMQ_PASS", "p/w@:x")
    configure(project, "RABBITMQ_USER = 'me'; RABBITMQ_PORT = 7000")
    assert Config()["RABBITMQ_URL"] == "amqp://me:p%2Fw%40%3Ax@[::1]:7000/%2F"
    monkeypatch.setenv("FSDF_RABBITMQ_VIRTUAL_HOST", "a b")
    assert Config()["RABBITMQ_URL"] == "amqp://me:p%2Fw%40%3Ax@[::1]:7000/a%20b"
    monkeypatch.setenv("FSDF_RABBITMQ_URL", "amqp://whole/")
    assert Config()["RABBITMQ_URL"] == "amqp://whole/"


def test_patch_is_all_or_nothing():
    config = Config()
    with pytest.raises(ConfigurationError):
        config.patch({"LEASE": 3, "REDIS_PORT": "many"})
    assert config["LEASE"] == 15.0
    assert config.patches() == {}


def test_patches_configure_another_process_alike():
    config = Config()
    config.patch({"LEASE": 3, "BROKER_KIND": 9})
    child = Config()
    child.patch(config.patches())
    assert (child["LEASE"], child["BROKER_KIND"]) == (3.0, "redis_ack")


@pytest.mark.parametrize("use", [lambda c, k: c[k], lambda c, k: c.patch({k: "x"})])
def test_unknown_key_is_answered_with_the_right_one(use):
    with pytest.raises(ConfigurationError, match="'REDSI_URL'.*did you mean 'REDIS_URL'?"):
        use(Config(), "REDSI_URL")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "LEASE",
            "soon",
            "LEASE is 'soon' (environment FSDF_LEASE): must be seconds between 1 and",
        ),
        ("LEASE", "nan", "must be seconds between 1 and 86400"),
        ("LEASE", "0", "must be seconds between 1 and 86400"),
        ("REDIS_PORT", "70000", "must be a whole number between 1 and 65535"),
        ("REDIS_DB", "1.5", "must be a whole number between 0 and 1000000"),
        ("BROKER_KIND", "redsi", "unknown broker 'redsi'; did you mean 'redis'?"),
        ("RESULT_STORE", "reddis", "unknown result store 'reddis'; did you mean 'redis'?"),
        ("LOG_LEVEL", "loud", "must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    ],
)
def test_wrong_value_is_named_with_its_source(monkeypatch, key, value, message):
    monkeypatch.setenv(f"FSDF_{key}", value)
    with pytest.raises(ConfigurationError) as caught:
        Config()[key]
    assert message in str(caught.value)
    assert f"(environment FSDF_{key})" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("REDIS_URL", 5), ("LEASE", True), ("LEASE", None), ("REDIS_HOST", b"x"), ("LOG_LEVEL", [])],
)
def test_wrong_type_is_refused(key, value):
    with pytest.raises(ConfigurationError, match=f"{key} is"):
        Config({key: value})


@pytest.mark.parametrize(
    ("key", "value", "meaning"),
    [
        ("BROKER_KIND", "2", "redis"), ("BROKER_KIND", 6, "sqlite"), ("LOG_LEVEL", 10, "DEBUG"),
        ("LOG_LEVEL", "warning", "WARNING"), ("SQLITE_PATH", Path("/x/y"), "/x/y"),
        ("REDIS_PORT", "7000", 7000),
    ],
)  # fmt: skip
def test_accepted_forms_of_a_value(key, value, meaning):
    assert Config({key: value})[key] == meaning


def test_passwords_are_shown_nowhere(monkeypatch):
    monkeypatch.setenv("FSDF_REDIS_URL", "redis://h/0?password=sesame")
    assert "sesame" not in str(settings.explain(Config()))
    monkeypatch.delenv("FSDF_REDIS_URL")
    monkeypatch.setenv("FSDF_REDIS_PASSWORD", "sesame")
    config = Config()
    assert "sesame" in config.text("REDIS_URL")
    assert "sesame" not in str(settings.explain(config))
    with pytest.raises(ConfigurationError) as caught:
        Config({"REDIS_PASSWORD": 5})
    assert "5" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:pw@h:1/0", "redis://:***@h:1/0"),
        ("redis://u:p@w/x@h:1/0", "redis://u:***@h:1/0"),
        ("redis://h/0?password=pw&db=1", "redis://h/0?password=***&db=1"),
        ("redis+sentinel://h/s?sentinel_password=pw", "redis+sentinel://h/s?sentinel_password=***"),
        ("rediss://user:p@w@h", "rediss://user:***@h"),
        ("amqp://guest:guest@h:5672/v", "amqp://guest:***@h:5672/v"),  # not told: that these equal
        ("postgresql://shop:shop1@h/d", "postgresql://shop:***@h/d"),
        ("mysql://shop%40h:pw@h/d?password=pw", "mysql://shop%40h:***@h/d?password=***"),
        ("unix://:pw@/tmp/s?db=1", "unix://:***@/tmp/s?db=1"),
        ("redis://user@h", "redis://***@h"),  # where the colon is missing it is the password
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("/path/to:a@b.sqlite", "/path/to:a@b.sqlite"),
    ],
)
def test_masking_hides_the_password_only(url, shown):
    assert masked(url) == shown


def test_sqlite_file_follows_the_platforms_custom(monkeypatch, tmp_path):
    monkeypatch.delenv("FSDF_SQLITE_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    monkeypatch.setattr(sys, "platform", "linux")
    assert Config()["SQLITE_PATH"] == str(tmp_path / ".local/share/fsdf/fsdf.sqlite")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert Config()["SQLITE_PATH"] == str(tmp_path / "data/fsdf/fsdf.sqlite")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert Config()["SQLITE_PATH"] == str(tmp_path / "Library/Application Support/fsdf/fsdf.sqlite")


def test_typed_settings_name_every_key():
    assert set(Settings.__annotations__) == set(KEYS)


def test_every_default_is_valid():
    for key in KEYS.values():
        assert key.parse(key.default) == key.default


def test_written_file_holds_every_default_and_changes_nothing(tmp_path):
    path = settings.write(tmp_path, KEYS.values())
    assert [row["source"] for row in settings.explain(Config(folder=tmp_path))].count(
        "default"
    ) >= len(KEYS) - 1
    names: dict[str, object] = {}
    exec("\n".join(line.removeprefix("# ") if " = " in line else "" for line in
                   path.read_text().splitlines()), names)  # fmt: skip
    assert {name: names[name] for name in KEYS} == {k.name: k.default for k in KEYS.values()}


def test_existing_file_is_never_written_over(tmp_path):
    path = configure(tmp_path, "LEASE = 3")
    with pytest.raises(ConfigurationError, match="exists; it was not changed"):
        settings.write(tmp_path, KEYS.values())
    assert path.read_text() == "LEASE = 3"
    assert os.listdir(tmp_path) == [frame_file.NAME]


def test_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot write .*No such file or directory"):
        settings.write(tmp_path / "missing", KEYS.values())
