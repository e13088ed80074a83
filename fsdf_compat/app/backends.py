"""Which class keeps results: by name, by URL, or as an entry point."""

from __future__ import annotations

import types
from typing import Any

from fsdf_engine import masked

from .._app.naming import named
from .._state import current_app
from ..exceptions import ImproperlyConfigured
from ..utils.imports import load_extension_class_names, symbol_by_name

__all__ = ["WrongUrl", "by_name", "by_url", "made"]

BACKEND_ALIASES = {
    "arangodb": "celery.backends.arangodb:ArangoDbBackend",
    "azureblockblob": "celery.backends.azureblockblob:AzureBlockBlobBackend",
    "cache": "celery.backends.cache:CacheBackend",
    "cassandra": "celery.backends.cassandra:CassandraBackend",
    "consul": "celery.backends.consul:ConsulBackend",
    "cosmosdbsql": "celery.backends.cosmosdbsql:CosmosDBSQLBackend",
    "couchbase": "celery.backends.couchbase:CouchbaseBackend",
    "couchdb": "celery.backends.couchdb:CouchBackend",
    "database": "celery.backends.database:DatabaseBackend",
    "db": "celery.backends.database:DatabaseBackend",
    "disabled": "celery.backends.base:DisabledBackend",
    "dynamodb": "celery.backends.dynamodb:DynamoDBBackend",
    "elasticsearch": "celery.backends.elasticsearch:ElasticsearchBackend",
    "file": "celery.backends.filesystem:FilesystemBackend",
    "gs": "celery.backends.gcs:GCSBackend",
    "mongodb": "celery.backends.mongodb:MongoBackend",
    "redis": "celery.backends.redis:RedisBackend",
    "rediss": "celery.backends.redis:RedisBackend",
    "riak": "celery.backends.riak:RiakBackend",
    "rpc": "celery.backends.rpc.RPCBackend",
    "s3": "celery.backends.s3:S3Backend",
    "sentinel": "celery.backends.redis:SentinelBackend",
}
_UNKNOWN = "Unknown result backend: {!r}.  Did you spell that correctly? ({})"


def by_name(
    backend: Any = None, loader: Any = None, extension_namespace: str = "celery.result_backends"
) -> Any:
    """Return the class of a backend given by its alias, its path or itself.

    Raises:
        ImproperlyConfigured: there is none of this name.
    """
    loader = loader or current_app.loader
    aliases = {**BACKEND_ALIASES, **loader.override_backends}
    aliases.update(load_extension_class_names(extension_namespace))
    backend = backend or "disabled"
    try:
        is_name = isinstance(backend, str)
        find = symbol_by_name  # which tests replace here
        cls = named("result backend", backend, aliases, find) if is_name else find(backend)
    except ValueError as error:
        raise ImproperlyConfigured(_UNKNOWN.format(backend, repr(error))) from error
    if isinstance(cls, types.ModuleType):
        raise ImproperlyConfigured(_UNKNOWN.format(backend, "it is a module, not a class"))
    return cls


def by_url(backend: Any = None, loader: Any = None) -> tuple[Any, str | None]:
    """Return the class of a backend and its URL, if it was given by one: `db+sqlite:///x`."""
    url = None
    if isinstance(backend, str) and "://" in backend:
        url = backend
        backend = url.partition("://")[0]
        if "+" in backend:
            backend, url = url.split("+", 1)
    return by_name(backend, loader), url


class WrongUrl(ImproperlyConfigured, ValueError):
    """A URL that cannot be read; a ValueError, too, as it is in Celery."""


def made(backend: Any, app: Any) -> Any:
    """Return an app's backend, made of its URL, its name or its class.

    Raises:
        ImproperlyConfigured: there is none of this name, or its URL cannot be read.
    """
    cls, url = by_url(backend, app.loader)
    try:
        return cls(app=app, url=url)
    except ValueError as error:
        if not url:
            raise
        if (shown := masked(url)) == url:
            raise WrongUrl(f"result_backend={url!r}: {error}") from error
        why = "write / ? # and @ in a password as %2F %3F %23 %40"
        # not `error`: what cannot be read may be a part of the password
        raise WrongUrl(f"result_backend={shown!r}: {why}") from None
