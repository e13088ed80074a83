"""Files beside a queue: links are not followed, and what belongs to others is refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fsdf_engine.brokers.owned import check_place, make_folder, open_file
from fsdf_engine.brokers.sqlite import SqliteBroker
from fsdf_engine.brokers.wakeup import Waiter, WakeUps
from fsdf_engine.errors import ServerRefused
from fsdf_engine.testing.brokers import outgoing

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the platform has no users")
STRANGER = 65534


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of ours, where others have been."""
    (found := tmp_path / "data").mkdir(0o700)
    return found


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file that nobody may change."""
    (file := tmp_path / "victim").write_text("precious")
    file.chmod(0o640)
    yield file
    assert file.read_text() == "precious"
    assert file.stat().st_mode & 0o777 == 0o640


def give_away(path: Path) -> None:
    """Let it belong to another user."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, STRANGER, -1, follow_symlinks=False)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ServerRefused, match="set SQLITE_PATH") as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("name", ["map", "lock", "turn"])
@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to], ids=["link", "hard-link"])
def test_planted_link_beside_a_queue_is_refused(folder, victim, name, plant):
    path = folder / "queue.sqlite"
    (folder / "queue.sqlite.bell").mkdir(0o700)
    plant(folder / "queue.sqlite.bell" / name, victim)
    message = refused(lambda: SqliteBroker(str(path)).publish([outgoing(1)]))
    assert f"bell/{name} is" in message


def test_planted_link_without_a_target_makes_no_file(folder, tmp_path):
    (folder / "a").symlink_to(tmp_path / "nowhere")
    assert "is a link" in refused(lambda: open_file(str(folder / "a"), 0o600))
    assert not (tmp_path / "nowhere").exists()


def test_planted_folder_is_refused(folder, tmp_path):
    path = folder / "queue.sqlite"
    (tmp_path / "elsewhere").mkdir()
    (folder / "queue.sqlite.bell").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refused(SqliteBroker(str(path)).check)
    assert not [*(tmp_path / "elsewhere").iterdir()]
    (folder / "queue.sqlite.bell").unlink()
    (folder / "queue.sqlite.bell").mkdir()
    give_away(folder / "queue.sqlite.bell")
    assert f"belongs to the user {STRANGER}" in refused(SqliteBroker(str(path)).check)


def test_file_of_another_user_is_refused(folder):
    file = folder / "lock"
    file.touch()
    give_away(file)
    assert f"belongs to the user {STRANGER}" in refused(lambda: open_file(str(file), 0o600))


def test_what_is_no_plain_file_is_refused(folder):
    os.mkfifo(folder / "lock")
    assert "no plain file" in refused(lambda: open_file(str(folder / "lock"), 0o600))


def test_queue_of_another_user_where_anybody_can_write_is_refused(folder):
    path = folder / "queue.sqlite"
    SqliteBroker(str(path)).check()
    folder.chmod(0o1777)
    check_place(str(path))
    give_away(path)
    assert f"belongs to the user {STRANGER}" in refused(lambda: check_place(str(path)))
    folder.chmod(0o755)
    check_place(str(path))  # he shares it


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_planted_side_file_is_refused(folder, victim, suffix):
    path = folder / "queue.sqlite"
    (folder / f"queue.sqlite{suffix}").symlink_to(victim)
    assert f"{suffix} is a link" in refused(SqliteBroker(str(path)).check)


def test_link_of_our_own_leads_to_the_queue_and_one_of_another_does_not(folder, tmp_path):
    (tmp_path / "disk").mkdir()
    (folder / "queue.sqlite").symlink_to(tmp_path / "disk" / "real.sqlite")
    broker = SqliteBroker(str(folder / "queue.sqlite"))
    broker.publish([outgoing(1)])
    broker.close()
    assert (tmp_path / "disk" / "real.sqlite").exists()
    give_away(folder / "queue.sqlite")
    assert "is a link" in refused(broker.check)


def test_what_we_make_is_ours_alone(folder):
    old = os.umask(0)
    try:
        broker = SqliteBroker(str(folder / "queue.sqlite"))
        broker.publish([outgoing(1)])
        waiter = Waiter(broker.file.wakeups, "q")
        modes = {f: f.lstat().st_mode & 0o777 for f in folder.rglob("*")}
    finally:
        os.umask(old)
    assert modes.pop(folder / "queue.sqlite.bell") == 0o700
    assert len(modes) >= 5
    assert set(modes.values()) == {0o600}
    waiter.close()
    broker.close()


def test_rights_that_were_too_wide_are_narrowed(folder):
    (folder / "queue.sqlite.bell").mkdir()
    (folder / "queue.sqlite.bell").chmod(0o777)
    (folder / "queue.sqlite").touch(0o600)
    wakeups = WakeUps(str(folder / "queue.sqlite"))
    assert (folder / "queue.sqlite.bell").stat().st_mode & 0o777 == 0o700
    wakeups.close()
    make_folder(str(folder), 0o750, os.geteuid())
    assert folder.stat().st_mode & 0o777 == 0o750
