"""What a program is configured with, where each value comes from, and what it means.

Sources, the strongest first: what was given to `Config`; what `patch` set; the environment variable
`FSDF_<KEY>`; `distributed_frame_config.py` beside the start script, in the current folder, in the
project's root; the default. Nothing is read before the first look-up: then the files once, the
environment each time.

In every source text that is empty sets nothing, so that the next one counts, and a wrong value is
an error that names its source. A name that is no key is an error in code, which was written for
this version; in files and the environment, which may serve other programs and versions, too, it is
one warning. What old projects have for brokers that this version lacks is a warning everywhere.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from . import frame_file
from .composed import COMPOSED
from .errors import ConfigurationError, FsdfError
from .known_keys import LATER, remark, unknown_variables
from .registry import brokers, stores
from .spelling import did_you_mean, masked

__all__ = ["KEYS", "Config", "Found", "Key", "Settings", "check_environment"]

Value = str | int | float
_log = logging.getLogger("fsdf.config")


class Settings(TypedDict, total=False):
    """Every configuration key with its type; unpacked into `patch` and `patch_frame_config`."""

    BROKER_KIND: str | int
    REDIS_URL: str
    REDIS_HOST: str
    REDIS_PORT: int
    REDIS_PASSWORD: str
    REDIS_DB: int
    RABBITMQ_URL: str
    RABBITMQ_HOST: str
    RABBITMQ_PORT: int
    RABBITMQ_USER: str
    RABBITMQ_PASS: str
    RABBITMQ_VIRTUAL_HOST: str
    SQLITE_PATH: str
    SQLALCHEMY_URL: str
    SQLACHEMY_ENGINE_URL: str
    SQL_LISTEN_URL: str
    RESULT_STORE: str
    TIMEZONE: str
    RESULT_EXPIRES: float
    LEASE: float
    LOG_LEVEL: str | int
    LOG_FORMAT: str
    LOG_FILE: str
    LOG_FILE_SIZE: int
    LOG_FILE_COUNT: int
    LOG_FOLDER: str
    LOG_INTERVAL: float


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
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            with suppress(ValueError, OverflowError):
                number = kind(value)
                if low <= number <= high and number == float(value):
                    return number
        raise ValueError(f"must be {unit} between {low:.15g} and {high:.15g}")

    return parse


def _broker(value: Any) -> str:
    return brokers.name(value if isinstance(value, int) else _text(value))


def _store(value: Any) -> str:
    return stores.name(_text(value)) if value else ""


def _zone(value: Any) -> str:
    if name := _text(value):
        from zoneinfo import ZoneInfo

        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):  # unknown, malformed, or a folder of names
            raise ValueError("must be the name of a time zone, such as Asia/Shanghai") from None
    return name


def _level(value: Any) -> str:
    known = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    if str(value).isdecimal():  # the historic form: 10 for DEBUG
        value = logging.getLevelName(int(value))
    if (name := _text(value).upper()) in known:
        return name
    raise ValueError(f"must be one of {', '.join(known)}")


def _format(value: Any) -> str:
    if (name := _text(value).lower()) in ("text", "json"):
        return name
    raise ValueError("must be text or json")


_port = _number(1, 65535, "a whole number", int)
_database = _number(0, 1_000_000, "a whole number", int)
_lease = _number(1, 86_400, "seconds")
_interval = _number(1, 86_400, "seconds")
_size = _number(1000, 1 << 40, "a whole number of bytes", int)
_count = _number(0, 10_000, "a whole number", int)
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
        Key("RABBITMQ_URL", "amqp://127.0.0.1:5672/", "RabbitMQ: amqp://, amqps://", _text),
        Key("RABBITMQ_HOST", "127.0.0.1", "Its host, where RABBITMQ_URL is not set.", _text),
        Key("RABBITMQ_PORT", 5672, "Its port, likewise.", _port),
        Key("RABBITMQ_USER", "guest", "Its user, likewise.", _text),
        Key("RABBITMQ_PASS", "guest", "Its password, likewise.", _text, secret=True),
        Key("RABBITMQ_VIRTUAL_HOST", "/", "Its virtual host, likewise.", _text),
        Key("SQLITE_PATH", "", "The SQLite file; empty: in the user's data folder.", _text),
        Key("SQLALCHEMY_URL", "", "SQL: postgresql://, mysql://, mariadb://, sqlite:///", _text),
        Key("SQLACHEMY_ENGINE_URL", "", "The same, where SQLALCHEMY_URL is not set.", _text),
        Key("SQL_LISTEN_URL", "", "PostgreSQL itself, where that is a pooler's.", _text),
        Key("RESULT_STORE", "", "Where results are kept; empty: with the task's broker.", _store),
        Key("TIMEZONE", "", "The scheduler's, as Asia/Shanghai; empty: this machine's.", _zone),
        Key("RESULT_EXPIRES", 86_400.0, "Seconds for which a result is kept.", _expires),
        Key("LEASE", 15.0, "Seconds after which a dead worker's messages return.", _lease),
        Key("LOG_LEVEL", "INFO", "What is logged: DEBUG, INFO, WARNING, ERROR.", _level),
        Key("LOG_FORMAT", "text", "How: text (with colours at a terminal) or json.", _format),
        Key("LOG_FILE", "", "A file for it, beside stderr; empty: none.", _text),
        Key("LOG_FILE_SIZE", 100_000_000, "The bytes at which it is rotated.", _size),
        Key("LOG_FILE_COUNT", 10, "How many old ones are kept.", _count),
        Key("LOG_FOLDER", "", "Of create_logger_file; empty: in the user's data folder.", _text),
        Key("LOG_INTERVAL", 60.0, "Seconds between the lines of figures of a queue.", _interval),
    )
}  # fmt: skip


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

    given: Mapping[str, object] = field(default_factory=dict, repr=False)  # may hold passwords
    folder: Path | None = None
    _patches: dict[str, object] = field(default_factory=dict, repr=False)
    _files: list[frame_file.FrameFile] | None = field(default=None, repr=False)
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
            kept = {name: value for name, value in self._patches.items() if name not in values}
            self._patches = {**kept, **parsed}

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
        if name in COMPOSED:
            return self._composed(found, *COMPOSED[name])
        if name == "SQLITE_PATH":
            return found._replace(value=self._sqlite_path(found))
        if name == "SQLALCHEMY_URL":
            return self._sql_url(found)
        if name == "LOG_FOLDER" and not found.value:
            return found._replace(value=str(_data_folder() / "logs"))
        return found

    def _sqlite_path(self, found: Found) -> str:
        """In a file a relative path starts at its folder: who shares the one shares the other."""
        path = str(found.value)
        if not path:
            return str(_data_folder() / "fsdf.sqlite")
        if found.rank < 3 or ":" in path or path.startswith("~"):
            return path
        return str(Path(found.source).parent / path)

    def _look_up(self, name: str) -> Found:
        key, variable = KEYS[name], f"FSDF_{name}"
        if name in self.given:
            return _parsed(key, self.given[name], "given", 0)
        if name in self._patches:
            return _parsed(key, self._patches[name], "patch_frame_config", 1)
        if not _empty(value := os.environ.get(variable, "")):
            return _parsed(key, value, f"environment {variable}", 2)
        for rank, file in enumerate(self.files(), 3):
            if not _empty(written := file.values.get(name, "")):
                return _parsed(key, written, str(file.path), rank)
        return Found(key.default, "default", 9)

    def _composed(self, url: Found, names: Sequence[str], make: Callable[..., str]) -> Found:
        """Build the URL of its historic parts where one of them has the stronger source."""
        parts = [self._look_up(name) for name in names]
        strongest = min(parts, key=lambda part: part.rank)
        if strongest.rank >= url.rank:
            return url
        return strongest._replace(value=make(*(part.value for part in parts)))

    def _sql_url(self, url: Found) -> Found:
        """Take the former name's URL where that has the stronger source; add where to listen."""
        url = min(self._look_up("SQLACHEMY_ENGINE_URL"), url, key=lambda found: found.rank)
        if not (listen := str(self._look_up("SQL_LISTEN_URL").value)) or not url.value:
            return url
        from urllib.parse import quote

        mark = "&" if "?" in str(url.value) else "?"
        return url._replace(value=f"{url.value}{mark}listen={quote(listen, safe='')}")

    def files(self) -> list[frame_file.FrameFile]:
        """Return where files were looked for, the strongest first; read at the first call."""
        with self._lock:
            if self._files is None:
                self._files = []  # a file that asks for a value itself finds the other sources
                try:
                    self._files = frame_file.look(self.folder)
                except BaseException:
                    self._files = None
                    raise
                self._warn()
            return self._files

    def unknown(self) -> list[tuple[str, str]]:
        """Return the names that are no keys, each with the file or the variable's source."""
        names = [(n, str(f.path)) for f in self.files() for n in f.values if n not in KEYS]
        return names + [(name, "environment") for name in unknown_variables(KEYS)]

    def _warn(self) -> None:
        if (here := sys.modules.get("multiprocessing")) and here.parent_process() is not None:
            return  # the parent has said so
        told: list[tuple[str, ...]] = [
            ("%s was %s", str(file.path), file.state)
            for file in self.files()
            if file.state.startswith("not read")
        ]
        unknown = self.unknown()
        for source in dict.fromkeys(source for _, source in unknown):
            names = [name for name, where in unknown if where == source]
            prefix = "FSDF_" if source == "environment" else ""
            told.append(("%s: no configuration keys: %s", source, remark(names, KEYS, prefix)))
        if told:
            restore = self._log_as_configured()
            try:
                for line in told:
                    _log.warning(*line)
            finally:
                restore()

    def _log_as_configured(self) -> Callable[[], None]:
        """What is read first is told first, before a program or a consumer sets its logging up."""
        if _log.hasHandlers():
            return lambda: None
        from .log.setup import install_as_configured  # only who has something to tell needs it

        try:
            return install_as_configured(self)
        except FsdfError:  # who looks that value up gets the error
            return lambda: None


def check_environment() -> None:
    """Raise a ConfigurationError for a variable with a wrong value, whether it is used or not."""
    for name, key in KEYS.items():
        if not _empty(value := os.environ.get(f"FSDF_{name}", "")):
            _parsed(key, value, f"environment FSDF_{name}", 2)


def _validated(values: Mapping[str, object], source: str) -> dict[str, object]:
    for name in values:
        if name not in KEYS and name not in LATER:
            raise ConfigurationError(
                f"unknown configuration key {name!r} in {source}{did_you_mean(name, KEYS)}"
            )
    if later := [name for name in values if name not in KEYS]:
        _log.warning("%s: no configuration keys: %s", source, remark(later, KEYS))
    return {
        name: _parsed(KEYS[name], value, source, 0).value
        for name, value in values.items()
        if name in KEYS and not _empty(value)
    }


def _empty(value: object) -> bool:
    return isinstance(value, str) and not value.strip()


def _parsed(key: Key, value: object, source: str, rank: int) -> Found:
    try:
        return Found(key.parse(value), source, rank)
    except ValueError as error:  # ConfigurationError is one, too
        shown = "***" if key.secret else _shown(value)
        raise ConfigurationError(f"{key.name} is {shown} ({source}): {error}") from error


def _shown(value: object) -> str:
    """Return a wrong value, fit for a message; of an unexpected type only what that is."""
    if isinstance(value, str):
        return repr(masked(value))
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    return f"of type {type(value).__name__}"


def _data_folder() -> Path:
    """Return the folder for this user's data, by the custom of the platform."""
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
