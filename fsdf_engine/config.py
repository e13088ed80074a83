"""What a program is configured with, where each value comes from, and what it means.

Sources, the strongest first: what was given to `Config`; what `patch` set; the environment variable
`FSDF_<KEY>`; `distributed_frame_config.py` beside the start script; the same file in the project
root; the default. Nothing is read before the first look-up: then the files once, the environment
each time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from . import frame_file
from .errors import ConfigurationError
from .registry import brokers, stores
from .spelling import did_you_mean, masked

__all__ = ["KEYS", "Config", "Found", "Key", "Settings"]

Value = str | int | float


class Settings(TypedDict, total=False):
    """Every configuration key with its type; unpacked into `patch` and `patch_frame_config`."""

    BROKER_KIND: str | int
    REDIS_URL: str
    REDIS_HOST: str
    REDIS_PORT: int
    REDIS_PASSWORD: str
    REDIS_DB: int
    SQLITE_PATH: str
    RESULT_STORE: str
    RESULT_EXPIRES: float
    LEASE: float
    LOG_LEVEL: str | int


@dataclass(frozen=True, slots=True)
class Key:
    """A configuration key. `parse` takes a value of any origin, text from the environment too."""

    name: str
    default: Value
    doc: str
    parse: Callable[[Any], Value]
    secret: bool = False


def _text(value: Any) -> str:
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    raise ValueError("must be text")


def _number(low: float, high: float, unit: str, kind: type = float) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            raise ValueError(f"must be {unit}")
        try:
            number = kind(value)
        except (ValueError, OverflowError):
            raise ValueError(f"must be {unit}") from None
        if number != float(value) or not low <= number <= high:
            raise ValueError(f"must be {unit} between {low:g} and {high:g}")
        return number

    return parse


def _broker(value: Any) -> str:
    return brokers.name(value if isinstance(value, int) else _text(value))


def _store(value: Any) -> str:
    return stores.name(_text(value)) if value else ""


def _level(value: Any) -> str:
    import logging

    known = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    if str(value).isdecimal():  # the historic form: 10 for DEBUG
        value = logging.getLevelName(int(value))
    if (name := _text(value).upper()) in known:
        return name
    raise ValueError(f"must be one of {', '.join(known)}")


_port = _number(1, 65535, "a whole number", int)
_database = _number(0, 1_000_000, "a whole number", int)
_lease = _number(1, 86_400, "seconds")
_expires = _number(1, 10 * 366 * 86_400, "seconds")

KEYS: Mapping[str, Key] = {
    key.name: key
    for key in (
        Key("BROKER_KIND", "sqlite", "Where messages wait, unless a task says otherwise.", _broker),
        Key("REDIS_URL", "redis://127.0.0.1:6379/0", "Redis: redis://, rediss://, unix://", _text),
        Key("REDIS_HOST", "127.0.0.1", "Its host, where REDIS_URL is not set.", _text),
        Key("REDIS_PORT", 6379, "Its port, likewise.", _port),
        Key("REDIS_PASSWORD", "", "Its password, likewise.", _text, secret=True),
        Key("REDIS_DB", 0, "The number of the database, likewise.", _database),
        Key("SQLITE_PATH", "", "The SQLite file; empty: in the user's data folder.", _text),
        Key("RESULT_STORE", "", "Where results are kept; empty: with the task's broker.", _store),
        Key("RESULT_EXPIRES", 86_400.0, "Seconds for which a result is kept.", _expires),
        Key("LEASE", 15.0, "Seconds after which a dead worker's messages return.", _lease),
        Key("LOG_LEVEL", "INFO", "What the commands log: DEBUG, INFO, WARNING, ERROR.", _level),
    )
}  # fmt: skip

_REDIS_PARTS = ("REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "REDIS_DB")


class Found(NamedTuple):
    """A value, and what it was read from."""

    value: Value
    source: str
    rank: int  # 0 is the strongest source


@dataclass(slots=True)
class Config:
    """The configuration of one engine. All methods may be called by any thread.

    `given` is stronger than everything else. `folder` is where the start script lies; by default
    the folder of the main module's file.
    """

    given: Mapping[str, object] = field(default_factory=dict)
    folder: Path | None = None
    _patches: dict[str, object] = field(default_factory=dict)
    _files: list[frame_file.FrameFile] | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.given = _validated(self.given, "Config()")

    def __getitem__(self, key: str) -> Value:
        """Return the value of a key.

        Raises:
            ConfigurationError: the key is unknown, or its value is wrong; names where it stands.
        """
        return self.find(key).value

    def text(self, key: str) -> str:
        """Return the value of a key that is text."""
        return str(self[key])

    def number(self, key: str) -> float:
        """Return the value of a key that is a number."""
        return float(self[key])

    def patch(self, values: Mapping[str, object]) -> None:
        """Set several keys, all or none; stronger than the environment and the files.

        Raises:
            ConfigurationError: a key is unknown or a value is wrong.
        """
        parsed = _validated(values, "patch_frame_config")
        with self._lock:
            self._patches = {**self._patches, **parsed}

    def patches(self) -> Mapping[str, object]:
        """Return what `patch` has set: a child process needs it to be configured as this one."""
        return self._patches

    def find(self, name: str) -> Found:
        """Return the value of a key and where it comes from; raises as a look-up does."""
        if name not in KEYS:
            raise ConfigurationError(
                f"unknown configuration key {name!r}{did_you_mean(name, KEYS)}"
            )
        found = self._look_up(name)
        if name == "REDIS_URL":
            return self._redis_url(found)
        if name == "SQLITE_PATH" and not found.value:
            return found._replace(value=str(_data_folder() / "fsdf.sqlite"))
        return found

    def _look_up(self, name: str) -> Found:
        key, variable = KEYS[name], f"FSDF_{name}"
        if name in self.given:
            return _parsed(key, self.given[name], "given", 0)
        if name in self._patches:
            return _parsed(key, self._patches[name], "patch_frame_config", 1)
        if variable in os.environ:
            return _parsed(key, os.environ[variable], f"environment {variable}", 2)
        for rank, file in enumerate(self.files(), 3):
            if name in file.values:
                return _parsed(key, file.values[name], str(file.path), rank)
        return Found(key.default, "default", 5)

    def _redis_url(self, url: Found) -> Found:
        """Build the URL of its historic parts where one of them has the stronger source."""
        parts = [self._look_up(name) for name in _REDIS_PARTS]
        strongest = min(parts, key=lambda part: part.rank)
        if strongest.rank >= url.rank:
            return url
        from urllib.parse import quote

        host, port, password, database = (part.value for part in parts)
        user = f":{quote(str(password), safe='')}@" if password else ""
        where = f"[{host}]" if ":" in str(host) else host
        return strongest._replace(value=f"redis://{user}{where}:{port}/{database}")

    def files(self) -> list[frame_file.FrameFile]:
        """Return the configuration files, the strongest first; read at the first call."""
        with self._lock:
            if self._files is None:
                self._files = []  # a file that asks for a value itself finds the other sources
                try:
                    self._files = frame_file.read_all(self.folder, KEYS)
                except BaseException:
                    self._files = None
                    raise
            return self._files


def _validated(values: Mapping[str, object], source: str) -> dict[str, object]:
    for name in values:
        if name not in KEYS:
            raise ConfigurationError(
                f"unknown configuration key {name!r} in {source}{did_you_mean(name, KEYS)}"
            )
    return {name: _parsed(KEYS[name], value, source, 0).value for name, value in values.items()}


def _parsed(key: Key, value: object, source: str, rank: int) -> Found:
    try:
        return Found(key.parse(value), source, rank)
    except ValueError as error:  # ConfigurationError is one, too
        shown = "***" if key.secret else repr(masked(value) if isinstance(value, str) else value)
        raise ConfigurationError(f"{key.name} is {shown} ({source}): {error}") from error


def _data_folder() -> Path:
    """Return the folder for this user's data, by the custom of the platform."""
    import sys

    base: str | Path
    try:
        if sys.platform == "win32":
            base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Application Support"
        else:  # the XDG base directory specification; a relative path is to be ignored
            base = os.environ.get("XDG_DATA_HOME", "")
            base = base if os.path.isabs(base) else Path.home() / ".local" / "share"
    except RuntimeError as error:
        raise ConfigurationError(
            "this user has no home folder; set FSDF_SQLITE_PATH to a file"
        ) from error
    return Path(base) / "fsdf"
