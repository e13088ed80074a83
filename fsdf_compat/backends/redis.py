"""Results on Redis, in Celery's keys; see `_backends.native` for how they are kept and awaited."""

from __future__ import annotations

import select
import time
import warnings
from functools import partial
from typing import Any

from kombu.utils.functional import retry_over_time
from kombu.utils.objects import cached_property
from kombu.utils.url import maybe_sanitize_url

from .. import states
from .._backends.native import Native
from .._backends.redis_chords import CLEANUP as CHORD_CLEANUP_LUA
from .._backends.redis_chords import EXTEND as CHORD_CLAIM_EXTEND_LUA
from .._backends.redis_chords import PART as CHORD_PART_RETURN_LUA
from .._backends.redis_chords import RedisChords
from .._backends.redis_consumer import ResultConsumer
from .._backends.redis_consumer import socket_readable as _socket_readable
from .._backends.redis_places import check_ssl, driver, from_settings, from_url, more_errors
from .._state import task_join_will_block
from .._upward import adopt, upward
from ..canvas import maybe_signature
from ..exceptions import BackendStoreError, ImproperlyConfigured
from ..result import GroupResult, allow_join_result
from ..utils.log import get_logger
from ..utils.time import humanize_seconds
from .asynchronous import AsyncBackendMixin
from .base import BaseKeyValueStoreBackend

try:
    import redis
    import redis.connection
    import redis.sentinel
    from kombu.transport.redis import get_redis_error_classes
    from redis import CredentialProvider
except ImportError:
    redis = get_redis_error_classes = CredentialProvider = None  # type: ignore[assignment, misc]

__all__ = ("RedisBackend", "SentinelBackend")
logger = get_logger(__name__)
adopt(__name__, ResultConsumer)
E_REDIS_MISSING = "the Redis result backend needs redis-py: pip install redis"
E_REDIS_SENTINEL_MISSING = E_REDIS_MISSING
W_REDIS_COMPRESSION_DISABLED = (
    "The Redis result backend decodes responses to text: result_compression is ignored."
)
W_REDIS_SSL_CERT_OPTIONAL = (
    "ssl_cert_reqs=CERT_OPTIONAL: the identity of the redis server may not be checked, which leaves"
    " you open to man in the middle attacks."
)
W_REDIS_SSL_CERT_NONE = (
    "ssl_cert_reqs=CERT_NONE: the identity of the redis server is not checked, which leaves you"
    " open to man in the middle attacks."
)
E_REDIS_SSL_PARAMS_AND_SCHEME_MISMATCH = (
    "SSL connection parameters have been provided but the specified URL scheme is redis://: use"
    " rediss://."
)
E_REDIS_SSL_CERT_REQS_MISSING_INVALID = (
    "A rediss:// URL must have parameter ssl_cert_reqs and this must be set to CERT_REQUIRED,"
    " CERT_OPTIONAL, or CERT_NONE"
)
E_LOST = "Connection to Redis lost: Retry (%s/%s) %s."


class RedisBackend(  # type: ignore[misc]
    Native, RedisChords, BaseKeyValueStoreBackend, AsyncBackendMixin
):
    """Results on Redis."""

    store = "redis"
    ResultConsumer = ResultConsumer
    redis: Any = redis
    connection_class_ssl: Any = redis.SSLConnection if redis else None
    max_connections: Any = None
    supports_autoexpire = True
    supports_native_join = True
    supports_result_compression = True
    supports_failure_expires = True
    _MAX_STR_VALUE_SIZE = 512 << 20  # the server's own limit

    def __init__(
        self,
        host: Any = None,
        port: Any = None,
        db: Any = None,
        password: Any = None,
        max_connections: Any = None,
        url: Any = None,
        connection_pool: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(expires_type=int, **kwargs)
        if self.redis is None:
            raise ImproperlyConfigured(E_REDIS_MISSING)
        conf = self.app.conf
        lasts = conf.get("result_failure_expires")
        self.failure_expires = (
            self.expires if lasts is None else self.prepare_expires(lasts, type=int)
        )
        if host and "://" in host:
            url, host = host, None
        self.max_connections = (
            max_connections or conf.get("redis_max_connections") or self.max_connections
        )
        self._ConnectionPool = connection_pool
        self.connparams = from_settings(conf, self.max_connections, self.connection_class_ssl)
        self._place_at(url)
        self.connection_errors, self.channel_errors = get_redis_error_classes()
        options = conf.get("result_backend_transport_options", {})
        self.connection_errors += more_errors(options.get("additional_connection_errors"))
        self.result_consumer = self.ResultConsumer(
            self, self.app, self.accept, self._pending_results, self._pending_messages
        )
        self.thread_safe = self.thread_safe or self.native

    def _place_at(self, url: Any) -> None:
        if url:
            self.connparams = self._params_from_url(url, self.connparams)
        if self.compression and self.connparams.get("decode_responses"):
            warnings.warn(W_REDIS_COMPRESSION_DISABLED, UserWarning, 3)
            self.compression = None
        check_ssl(self.connparams)
        self.url = url
        self.connparams.update(driver(upward("").__version__))

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        return from_url(url, defaults, self.redis)

    # ---------------------------------------------------------------- the client

    def _create_client(self, **params: Any) -> Any:
        return self._get_client()(connection_pool=self._get_pool(**params))

    def _get_client(self) -> Any:
        return self.redis.StrictRedis

    def _get_pool(self, **params: Any) -> Any:
        return self.ConnectionPool(**params)

    @property
    def ConnectionPool(self) -> Any:
        """What makes the pool of connections."""
        if self._ConnectionPool is None:
            self._ConnectionPool = self.redis.ConnectionPool
        return self._ConnectionPool

    @cached_property
    def client(self) -> Any:
        """The client; made when it is first used."""
        return self._create_client(**self.connparams)

    @cached_property
    def _transport_options(self) -> Any:
        return self.app.conf.get("result_backend_transport_options", {})

    @cached_property
    def _chord_zset(self) -> Any:
        return self._transport_options.get("result_chord_ordered", True)

    @cached_property
    def _chord_part_return_script(self) -> Any:
        return self.client.register_script(CHORD_PART_RETURN_LUA)

    @cached_property
    def _chord_cleanup_script(self) -> Any:
        return self.client.register_script(CHORD_CLEANUP_LUA)

    @cached_property
    def _chord_claim_extend_script(self) -> Any:
        return self.client.register_script(CHORD_CLAIM_EXTEND_LUA)

    @cached_property
    def retry_policy(self) -> Any:
        """How what asks the server is repeated."""
        usual = super().retry_policy
        return {**usual, **self._transport_options.get("retry_policy", {})}

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Say whether the server may be asked again after this."""
        return isinstance(exc, self.connection_errors)

    def ensure(self, fun: Any, args: Any, **policy: Any) -> Any:
        """Call what asks the server, again where the connection is lost. Blocks."""
        policy = {**self.retry_policy, **policy}
        lost = partial(self.on_connection_error, policy.get("max_retries"))
        return retry_over_time(fun, self.connection_errors, args, {}, lost, **policy)

    def on_connection_error(self, max_retries: Any, exc: Any, intervals: Any, retries: Any) -> Any:
        """Log a lost connection, and return for how long to wait."""
        pause = next(intervals)
        logger.error(E_LOST, retries, max_retries or "Inf", humanize_seconds(pause, "in "))
        return pause

    # ---------------------------------------------------------------- keys

    def get(self, key: Any) -> Any:
        """Return what lies under a key, or None."""
        return self.client.get(key)

    def mget(self, keys: Any) -> Any:
        """Return what lies under keys."""
        return self.client.mget(keys)

    def expires_for_state(self, state: str) -> Any:
        """Return how many seconds what is stored of a state lasts."""
        return self.failure_expires if state == states.FAILURE else self.expires

    def _set_with_state(self, key: Any, value: Any, state: str) -> Any:
        if state == states.FAILURE:
            return self.set(key, value, expires=self.failure_expires)
        return self.set(key, value)

    def set(self, key: Any, value: Any, expires: Any = None, **retry_policy: Any) -> Any:
        """Let a value lie under a key, and publish it there."""
        if isinstance(value, str) and len(value) > self._MAX_STR_VALUE_SIZE:
            raise BackendStoreError("value too large for Redis backend")
        return self.ensure(self._set, (key, value, expires), **retry_policy)

    def _set(self, key: Any, value: Any, expires: Any = None) -> None:
        expires = self.expires if expires is None else expires
        with self.client.pipeline() as pipe:
            if expires:
                pipe.setex(key, expires, value)
            else:
                pipe.set(key, value)
            pipe.publish(key, value)
            pipe.execute()

    def delete(self, key: Any) -> None:
        """Delete what lies under a key."""
        self.client.delete(key)

    def incr(self, key: Any) -> Any:
        """Count under a key."""
        return self.client.incr(key)

    def expire(self, key: Any, value: Any) -> Any:
        """Let what lies under a key last so many seconds."""
        return self.client.expire(key, value)

    def forget(self, task_id: Any) -> None:
        """Delete what is stored about a task, and wait for it no more."""
        super().forget(task_id)
        self.result_consumer.cancel_for(task_id)

    def on_task_call(self, producer: Any, task_id: Any) -> Any:
        """Subscribe to a task that is about to be sent, where the engine does not do it."""
        if not self.native and not task_join_will_block():
            self.result_consumer.consume_from(task_id)

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        return super().__reduce__(
            args, {**(kwargs or {}), "expires": self.expires, "url": self.url}
        )

    # ---------------------------------------------------------------- chords

    def add_to_chord(self, group_id: Any, result: Any) -> None:
        """Let a chord have one more task."""
        if self.native:
            key = getattr(result, "id", result)
            self.change_groups(lambda groups: groups.grow(group_id, 1, key))
        else:
            self.client.incr(self.get_key_for_group(group_id, ".t"), 1)

    def set_chord_size(self, group_id: Any, chord_size: int) -> None:
        """Tell how many tasks a header has."""
        if self.native:
            self.change_groups(lambda groups: groups.set_size(group_id, chord_size))
        else:
            self._count_size(group_id, chord_size)

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Prepare for the body of a chord whose header is about to be sent."""
        if self.native:
            self.open_chord(header_result_args, body)
        else:
            self._save_header(header_result_args)

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any
    ) -> Any:
        """Count a task of a header."""
        if self.native:
            return self.keep_member(request, state, result)
        if not request.group or not request.id:
            return None
        return self._count_part(request, state, result)


if redis:

    class SentinelManagedSSLConnection(
        redis.sentinel.SentinelManagedConnection, redis.SSLConnection
    ):
        """A connection to the master that sentinels name, over TLS."""


class SentinelBackend(RedisBackend):
    """Results on the master that sentinels name: "sentinel://HOST:PORT/DB;sentinel://..."."""

    store = "redis"
    _SERVER_URI_SEPARATOR = ";"
    sentinel: Any = getattr(redis, "sentinel", None)
    connection_class_ssl = SentinelManagedSSLConnection if sentinel else None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if self.sentinel is None:
            raise ImproperlyConfigured(E_REDIS_SENTINEL_MISSING)
        super().__init__(*args, **kwargs)

    def as_uri(self, include_password: bool = False) -> Any:
        """Return the URLs of the sentinels, by default without passwords."""
        if include_password:
            return super().as_uri(include_password=include_password)
        shown = map(maybe_sanitize_url, (self.url or "").split(self._SERVER_URI_SEPARATOR))
        return self._SERVER_URI_SEPARATOR.join(
            url[:-1] if url.endswith(":///") else url for url in shown
        )

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        places = [super(SentinelBackend, self)._params_from_url(each, defaults)
                  for each in url.split(self._SERVER_URI_SEPARATOR)]  # fmt: skip
        params = {**defaults, "hosts": places}
        for name in ("host", "port", "db", "password"):
            params.pop(name, None)
        params.update((n, places[0][n]) for n in ("db", "password", "username") if n in places[0])
        return params

    def _get_sentinel_instance(self, **params: Any) -> Any:
        places = params.pop("hosts")
        return self.sentinel.Sentinel(
            [(place["host"], place["port"]) for place in places],
            min_other_sentinels=self._transport_options.get("min_other_sentinels", 0),
            sentinel_kwargs=self._transport_options.get("sentinel_kwargs", {}),
            **params,
        )

    def _get_pool(self, **params: Any) -> Any:
        master = self._get_sentinel_instance(**params).master_for(
            service_name=self._transport_options.get("master_name", None),
            redis_class=self._get_client(),
            **{name: params[name] for name in ("username", "password") if name in params},
        )
        return master.connection_pool
