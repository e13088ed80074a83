"""Results as files of one folder."""

from __future__ import annotations

import locale
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from uuid import uuid4

from kombu.utils.encoding import ensure_bytes

from ..exceptions import ImproperlyConfigured
from .base import KeyValueStoreBackend

__all__ = ("FilesystemBackend",)
default_encoding = locale.getpreferredencoding(False)
E_NO_PATH_SET = "You need to configure a path for the file-system backend"
E_PATH_NON_CONFORMING_SCHEME = (
    "A path for the file-system backend should conform to the file URI scheme"
)
E_PATH_INVALID = (
    "the file-system backend cannot write, read and delete a file in its folder: let the folder be"
    " there, and give this user the right to"
)


class FilesystemBackend(KeyValueStoreBackend):
    """Results as files of the folder that "file:///PATH" names."""

    supports_result_compression = True

    def __init__(
        self,
        url: Any = None,
        open: Callable[..., Any] = open,
        unlink: Callable[..., Any] = os.unlink,
        sep: str = os.sep,
        encoding: str = default_encoding,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.url = url
        path = self._find_path(url)
        if os.name == "nt" and path.startswith("/"):
            path = path[1:]
        self.path, self.sep = path.encode(encoding), sep.encode(encoding)
        self.open, self.unlink = open, unlink
        self._do_directory_test(b".fs-backend-" + str(uuid4()).encode(encoding))

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        return super().__reduce__(args, {**(kwargs or {}), "url": self.url})

    def _find_path(self, url: str | None) -> str:
        if not url:
            raise ImproperlyConfigured(E_NO_PATH_SET)
        if url.startswith("file://localhost/"):
            return url.removeprefix("file://localhost")
        if url.startswith("file://"):
            return url.removeprefix("file://")
        raise ImproperlyConfigured(E_PATH_NON_CONFORMING_SCHEME)

    def _do_directory_test(self, key: bytes) -> None:
        try:
            self.set(key, b"test value")
            works = self.get(key) == b"test value"
            self.delete(key)
        except OSError as error:
            raise ImproperlyConfigured(E_PATH_INVALID) from error
        if not works:
            raise ImproperlyConfigured(E_PATH_INVALID)

    def _filename(self, key: bytes) -> bytes:
        return self.sep.join((self.path, key))

    def get(self, key: Any) -> Any:
        """Return what lies in a key's file, or None."""
        try:
            with self.open(self._filename(key), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def mget(self, keys: Any) -> Iterator[Any]:
        """Yield what lies in the keys' files."""
        return map(self.get, keys)

    def set(self, key: Any, value: Any) -> None:
        """Write a key's file."""
        with self.open(self._filename(key), "wb") as file:
            file.write(ensure_bytes(value))

    def delete(self, key: Any) -> None:
        """Delete a key's file."""
        self.unlink(self._filename(key))

    def cleanup(self) -> None:
        """Delete what is older than results last."""
        if not self.expires:
            return
        epoch = datetime(1970, 1, 1, tzinfo=self.app.timezone)
        oldest = (self.app.now() - epoch).total_seconds() - self.expires
        prefixes = (self.task_keyprefix, self.group_keyprefix, self.chord_keyprefix)
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            if name.startswith(prefixes) and os.stat(path).st_mtime < oldest:
                self.unlink(path)
