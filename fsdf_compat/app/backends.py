"""Which class keeps results: by name, by URL, or as an entry point."""

from __future__ import annotations

import types
from typing import Any

from .._state import current_app
from ..exceptions import ImproperlyConfigured
from ..utils.imports import load_extension_class_names, symbol_by_name

__all__ = ["by_name", "by_url"]

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
    named = aliases.get(backend, backend) if isinstance(backend, str) else backend
    try:
        cls = symbol_by_name(named)
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
