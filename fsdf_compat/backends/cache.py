"""Results in memcached, or in the memory of this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu.utils.encoding import bytes_to_str, ensure_bytes
from kombu.utils.objects import cached_property

from ..exceptions import ImproperlyConfigured
from ..utils import deprecated
from ..utils.functional import LRUCache
from ..utils.log import get_logger
from .base import KeyValueStoreBackend

__all__ = ("CacheBackend",)
logger = get_logger(__name__)
MAX_RELATIVE_EXPIRES = 30 * 24 * 60 * 60  # seconds: memcached takes more for an instant
REQUIRES_BACKEND = "the memcached backend needs pymemcache: pip install pymemcache"
# a write that fails raises, and a server that does not answer blocks nobody for ever
DEFAULT_CLIENT_OPTIONS = {"default_noreply": False, "connect_timeout": 5.0, "timeout": 5.0}
PYLIBMC_ONLY_OPTIONS = ("behaviors", "binary")
_RETRYING = {"retry_delay": "retry_delay", "retry_for": "retry_for",
             "do_not_retry_for": "do_not_retry_for"}  # fmt: skip
_DUMMY_CLIENT_CACHE = LRUCache(limit=5000)  # of this process, shared by its threads


def get_memcache_client() -> tuple[Callable[..., Any], Callable[[Any], Any]]:
    """Return what makes clients of memcached, and what makes their keys.

    Raises:
        ImproperlyConfigured: pymemcache is not installed.
    """
    try:
        from pymemcache.client.base import Client
        from pymemcache.client.hash import HashClient
        from pymemcache.client.retrying import RetryingClient
    except ImportError:
        raise ImproperlyConfigured(REQUIRES_BACKEND) from None

    def make(servers: Any = None, **kwargs: Any) -> Any:
        options, retrying = _client_options(kwargs)
        places = _places(servers)
        if len(places) > 1:
            client = HashClient(places, **options)
        elif isinstance(places[0], (str, tuple)):
            client = Client(places[0], **options)
        else:
            raise ImproperlyConfigured(
                f"Memcache server address must be a string or tuple, got {places[0]!r}"
            )
        return RetryingClient(client, **retrying) if retrying else client

    return make, bytes_to_str


def _client_options(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of a client, and those of what repeats its calls, if that is wanted."""
    options = {**DEFAULT_CLIENT_OPTIONS, **given}
    for name in PYLIBMC_ONLY_OPTIONS:
        if options.pop(name, None) is not None:
            deprecated.warn(
                description=f"The {name!r} cache backend option",
                removal="6.0",
                alternative="It is only supported by pylibmc and is ignored.",
                stacklevel=4,
            )
    attempts = options.pop("retry_attempts", None)
    found = {ours: options.pop(name, None) for name, ours in _RETRYING.items()}
    if attempts is None:
        return options, {}
    return options, {"attempts": attempts, **{k: v for k, v in found.items() if v is not None}}


def _places(servers: Any) -> list[Any]:
    """Return the addresses of servers, given as one, or as a list."""
    if isinstance(servers, str) or (
        isinstance(servers, tuple)
        and len(servers) == 2
        and isinstance(servers[0], str)
        and isinstance(servers[1], int)
    ):
        servers = [servers]
    if servers is not None and not isinstance(servers, (list, tuple)):
        raise ImproperlyConfigured(
            "Memcache servers must be a sequence of server addresses, got"
            f" {type(servers)}: {servers!r}"
        )
    if not (places := [server for server in servers or () if server]):
        raise ImproperlyConfigured("No memcache servers provided")
    return places


def import_best_memcache() -> Any:
    """As `get_memcache_client`, in an old form."""
    deprecated.warn(
        description="import_best_memcache()",
        removal="6.0",
        alternative="Use get_memcache_client() instead.",
    )
    try:
        import pymemcache
    except ImportError:
        raise ImproperlyConfigured(REQUIRES_BACKEND) from None
    return False, pymemcache, bytes_to_str


def get_best_memcache(*args: Any, **kwargs: Any) -> Any:
    """As `get_memcache_client`, under an old name."""
    deprecated.warn(
        description="get_best_memcache()",
        removal="6.0",
        alternative="Use get_memcache_client() instead.",
    )
    return get_memcache_client()


class DummyClient:
    """A cache in the memory of this process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.cache = _DUMMY_CLIENT_CACHE

    def get(self, key: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what lies under a key, or None."""
        return self.cache.get(key)

    def get_multi(self, keys: Any) -> dict:
        """Return what lies under keys."""
        return {key: self.cache[key] for key in keys if key in self.cache}

    def set(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        """Let a value lie under a key."""
        self.cache[key] = value

    def delete(self, key: Any, *args: Any, **kwargs: Any) -> None:
        """Delete what lies under a key."""
        self.cache.pop(key, None)

    def incr(self, key: Any, delta: int = 1) -> Any:
        """Count under a key."""
        return self.cache.incr(key, delta)

    def touch(self, key: Any, expire: Any) -> None:
        """Nothing ends by itself here."""


backends: dict[str, Callable[[], Any]] = {
    **dict.fromkeys(("memcache", "memcached", "pylibmc", "pymemcache"), get_memcache_client),
    "memory": lambda: (DummyClient, ensure_bytes),
}


class CacheBackend(KeyValueStoreBackend):
    """Results in memcached ("cache+memcached://HOST:PORT"), or here ("cache+memory://")."""

    servers: Any = None
    supports_autoexpire = True
    supports_native_join = True
    implements_incr = True

    def __init__(
        self,
        app: Any,
        expires: Any = None,
        backend: Any = None,
        options: Any = None,
        url: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(app, **kwargs)
        self.url = url
        self.options = {**app.conf.cache_backend_options, **(options or {})}
        self.backend = url or backend or app.conf.cache_backend
        if self.backend:
            self.backend, _, servers = self.backend.partition("://")
            self.servers = servers.rstrip("/").split(";")
        self.expires = self.prepare_expires(expires, type=int)
        if self.backend not in backends:
            raise ImproperlyConfigured(
                f"The cache backend {self.backend!r} is unknown,\nPlease use one of the following"
                f" backends instead: {', '.join(backends)}"
            )
        self.Client, self.key_t = backends[self.backend]()
        self._encode_prefixes()
        if self._chord_expires is not None and self.chord_expires > MAX_RELATIVE_EXPIRES:
            logger.warning(
                "result_chord_expires is over 30 days, which memcached takes for an instant long"
                " ago: what belongs to chords ends at once"
            )

    @cached_property
    def client(self) -> Any:
        """The client; made when it is first used."""
        return self.Client(self.servers, **self.options)

    def get(self, key: Any) -> Any:
        """Return what lies under a key, or None."""
        return self.client.get(key)

    def mget(self, keys: Any) -> Any:
        """Return what lies under keys."""
        return self.client.get_multi(keys)

    def set(self, key: Any, value: Any) -> Any:
        """Let a value lie under a key."""
        return self.client.set(key, value, self.expires or 0)

    def delete(self, key: Any) -> Any:
        """Delete what lies under a key."""
        return self.client.delete(key)

    def incr(self, key: Any) -> Any:
        """Count under a key."""
        return self.client.incr(key, 1)

    def expire(self, key: Any, value: Any) -> Any:
        """Let what lies under a key last so many seconds."""
        return self.client.touch(key, value or 0)

    def _apply_chord_incr(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        key = self.get_key_for_chord(header_result_args[0])
        self.client.set(key, 0, self.chord_expires or 0)
        super()._apply_chord_incr(header_result_args, body, **kwargs)

    def as_uri(self, *args: Any, **kwargs: Any) -> str:
        """Return its URL, of all servers."""
        return f"{self.backend}://{';'.join(self.servers)}/"

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        own = {"backend": self.as_uri(), "expires": self.expires, "options": self.options}
        return super().__reduce__(args, {**(kwargs or {}), **own})
