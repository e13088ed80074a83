"""The table of all settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from ..utils.serialization import strtobool
from . import shown_by

__all__ = [
    "DEFAULT_ACCEPT_CONTENT", "DEFAULT_POOL", "DEFAULT_PROCESS_LOG_FMT", "DEFAULT_SECURITY_DIGEST",
    "DEFAULT_TASK_LOG_FMT", "NAMESPACES", "Option",
]  # fmt: skip

DEFAULT_POOL = "prefork"
DEFAULT_ACCEPT_CONTENT = ("json",)
DEFAULT_SECURITY_DIGEST = "sha256"
DEFAULT_PROCESS_LOG_FMT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
DEFAULT_TASK_LOG_FMT = (
    "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"
)


@shown_by("app.defaults")
class Option:
    """One setting: its type, its default, its old names, and what stands in for a deprecated one.

    An old name may hold `{0}` for the option's name within its family.
    """

    typemap: Mapping[str, Callable[[Any], Any]] = {
        "any": lambda value: value, "bool": strtobool, "bytes": bytes, "dict": dict,
        "float": float, "int": int, "list": list, "string": str, "tuple": tuple,
    }  # fmt: skip

    def __init__(
        self, default: Any = None, *, type: str = "string", old: Any = (), alt: str = "",
        deprecate_by: str | None = None, remove_by: str | None = None,
    ) -> None:  # fmt: skip
        self.default, self.type, self.alt = default, type, alt
        self.old = {old} if isinstance(old, str) else set(old)
        self.deprecate_by, self.remove_by = deprecate_by, remove_by

    def to_python(self, value: Any) -> Any:
        """Return a value given as text as what it means."""
        return self.typemap[self.type](value)

    def __repr__(self) -> str:
        return f"<Option: type->{self.type} default->{self.default!r}>"


def _family(before: str, **options: Option) -> dict[str, Option]:
    """Return the options of a family; the old names of its options begin with `before`."""
    if before:
        for name, option in options.items():
            option.old = option.old or {f"{before}_{name}"}
    return options


_any, _bytes, _flag = (partial(Option, type=name) for name in ("any", "bytes", "bool"))
_float, _int, _list = (partial(Option, type=name) for name in ("float", "int", "list"))
_map, _text, _tuple = (partial(Option, type=name) for name in ("dict", "string", "tuple"))

NAMESPACES: dict[str, Any] = dict(  # noqa: C408 - names without quotes are easier to read
    accept_content=_list(DEFAULT_ACCEPT_CONTENT, old="CELERY_ACCEPT_CONTENT"),
    result_accept_content=_list(),
    enable_utc=_flag(True),
    import_unknown_tasks=_flag(True),
    imports=_tuple((), old="CELERY_IMPORTS"),
    include=_tuple((), old="CELERY_INCLUDE"),
    timezone=_text(old="CELERY_TIMEZONE"),
    arangodb=_family(
        "celery_arangodb",
        backend_settings=_map(),
    ),
    azureblockblob=_family(
        "",
        base_path=_text(""),
        connection_timeout=_int(20),
        container_name=_text("celery"),
        read_timeout=_int(120),
        retry_increment_base=_int(2),
        retry_initial_backoff_sec=_int(2),
        retry_max_attempts=_int(3),
    ),
    beat=_family(
        "celerybeat",
        cron_starting_deadline=_int(),
        enable_remote_control=_flag(False),
        max_loop_interval=_float(0),
        remote_control_max_tick_age=_float(),
        schedule=_map({}),
        schedule_filename=_text("celerybeat-schedule"),
        scheduler=_text("celery.beat:PersistentScheduler"),
        sync_every=_int(0),
    ),
    broker=_family(
        "",
        channel_error_retry=_flag(False),
        connection_max_retries=_int(100),
        connection_retry=_flag(True),
        connection_retry_on_startup=_flag(),
        connection_timeout=_float(4),
        failover_strategy=_text(),
        heartbeat=_int(120),
        heartbeat_checkrate=_int(3.0),
        host=_text(),
        login_method=_text(),
        native_delayed_delivery_queue_type=_text("quorum"),
        password=_text(),
        pool_acquire_timeout=_float(),
        pool_limit=_int(10),
        port=_int(),
        read_url=_text(),
        transport=_text(),
        transport_options=_map({}),
        url=_text(),
        use_ssl=_flag(False),
        user=_text(),
        vhost=_text(),
        write_url=_text(),
    ),
    cache=_family(
        "celery_cache",
        backend=_text(),
        backend_options=_map({}),
    ),
    cassandra=_family(
        "",
        auth_kwargs=_text(),
        auth_provider=_text(),
        bundle_path=_text(),
        entry_ttl=_float(),
        keyspace=_text(),
        options=_map({}),
        port=_text(),
        read_consistency=_text(),
        servers=_list(),
        table=_text(),
        write_consistency=_text(),
    ),
    control=_family(
        "",
        exchange=_text("celery"),
        queue_durable=_flag(False),
        queue_exclusive=_flag(True),
        queue_expires=_float(10.0),
        queue_ttl=_float(300.0),
    ),
    cosmosdbsql=_family(
        "",
        collection_name=_text("celerycol"),
        consistency_level=_text("Session"),
        database_name=_text("celerydb"),
        max_retry_attempts=_int(9),
        max_retry_wait_time=_int(30),
    ),
    couchbase=_family(
        "celery_couchbase",
        backend_settings=_map(),
    ),
    database=_family(
        "",
        create_tables_at_setup=_flag(True),
        engine_callback=_any(),
        engine_options=_map(
            {"pool_pre_ping": True, "pool_recycle": 3600}, old="CELERY_RESULT_ENGINE_OPTIONS"
        ),
        short_lived_sessions=_flag(False, old="CELERY_RESULT_DB_SHORT_LIVED_SESSIONS"),
        table_names=_map(old="CELERY_RESULT_DB_TABLENAMES"),
        table_schemas=_map(),
        url=_text(old="CELERY_RESULT_DBURI"),
    ),
    elasticsearch=_family(
        "celery_elasticsearch",
        max_retries=_int(),
        retry_on_timeout=_flag(),
        save_meta_as_text=_flag(True),
        timeout=_float(),
    ),
    event=_family(
        "celery_event",
        exchange=_text("celeryev"),
        queue_durable=_flag(False),
        queue_exclusive=_flag(True),
        queue_expires=_float(60.0),
        queue_prefix=_text("celeryev"),
        queue_ttl=_float(5.0),
        serializer=_text("json"),
    ),
    fsdf=_family("", queue_suffix=_text(".flat")),
    gcs=_family(
        "",
        base_path=_text(""),
        bucket=_text(),
        project=_text(),
        ttl=_float(0),
    ),
    mongodb=_family(
        "celery_mongodb",
        backend_settings=_map(),
    ),
    redis=_family(
        "celery_redis",
        backend_use_ssl=_map(),
        db=_int(),
        host=_text(),
        max_connections=_int(),
        password=_text(),
        port=_int(),
        retry_on_timeout=_flag(False),
        socket_connect_timeout=_float(),
        socket_keepalive=_flag(False),
        socket_timeout=_float(120.0),
        username=_text(),
    ),
    result=_family(
        "celery_result",
        backend=_text(),
        backend_always_retry=_flag(False),
        backend_base_sleep_between_retries_ms=_int(10),
        backend_max_retries=_float(float("inf")),
        backend_max_sleep_between_retries_ms=_int(10000),
        backend_transport_options=_map({}),
        cache_max=_int(-1, old="CELERY_MAX_CACHED_RESULTS"),
        chord_expires=_float(),
        chord_join_timeout=_float(3.0),
        chord_retry_interval=_float(1.0),
        compression=_text(),
        exchange=_text("celeryresults"),
        exchange_type=_text("direct"),
        expires=_float(timedelta(days=1), old="CELERY_TASK_RESULT_EXPIRES"),
        extended=_flag(False),
        failure_expires=_float(),
        persistent=_flag(),
        serializer=_text("json"),
    ),
    s3=_family(
        "",
        access_key_id=_text(),
        base_path=_text(),
        bucket=_text(),
        endpoint_url=_text(),
        region=_text(),
        secret_access_key=_text(),
    ),
    security=_family(
        "celery_security",
        cert_store=_text(),
        certificate=_text(),
        digest=_text(DEFAULT_SECURITY_DIGEST),
        key=_text(),
        key_password=_bytes(),
    ),
    task=_family(
        "celery",
        acks_late=_flag(False),
        acks_on_failure=_flag(),
        acks_on_failure_or_timeout=_flag(
            True,
            alt="task_acks_on_failure and task_acks_on_timeout",
            deprecate_by="6.0",
            remove_by="7.0",
        ),
        acks_on_timeout=_flag(),
        allow_error_cb_on_chord_header=_flag(False),
        always_eager=_flag(False),
        annotations=_any(),
        compression=_text(old="CELERY_MESSAGE_COMPRESSION"),
        create_missing_queue_exchange_type=_text(),
        create_missing_queue_type=_text("classic"),
        create_missing_queues=_flag(True),
        default_delivery_mode=_text(2),
        default_exchange=_text(),
        default_exchange_type=_text("direct"),
        default_priority=_text(),
        default_queue=_text("celery"),
        default_queue_type=_text("classic"),
        default_rate_limit=_text(),
        default_routing_key=_text(),
        eager_propagates=_flag(False, old="CELERY_EAGER_PROPAGATES_EXCEPTIONS"),
        ignore_result=_flag(False),
        inherit_parent_priority=_flag(False),
        protocol=_int(2, old="CELERY_TASK_PROTOCOL"),
        publish_retry=_flag(True, old="CELERY_TASK_PUBLISH_RETRY"),
        publish_retry_policy=_map(
            {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2},
            old="CELERY_TASK_PUBLISH_RETRY_POLICY",
        ),
        queue_max_priority=_int(),
        queues=_map(),
        reject_on_worker_lost=_flag(),
        remote_tracebacks=_flag(False),
        repr_maxlevels=_int(3),
        retry_on_worker_lost=_flag(False),
        routes=_any(),
        send_sent_event=_flag(False, old="CELERY_SEND_TASK_SENT_EVENT"),
        serializer=_text("json", old="CELERY_TASK_SERIALIZER"),
        soft_time_limit=_float(old="CELERYD_TASK_SOFT_TIME_LIMIT"),
        store_eager_result=_flag(False),
        store_errors_even_if_ignored=_flag(False),
        time_limit=_float(old="CELERYD_TASK_TIME_LIMIT"),
        track_started=_flag(False),
    ),
    worker=_family(
        "celeryd",
        agent=_text(),
        autoscaler=_text("celery.worker.autoscale:Autoscaler"),
        cancel_long_running_tasks_on_connection_loss=_flag(False),
        concurrency=_any(),
        consumer=_text("celery.worker.consumer:Consumer"),
        coroutines=_int(100),
        deduplicate_successful_tasks=_flag(False),
        detect_quorum_queues=_flag(True),
        direct=_flag(False, old="CELERY_WORKER_DIRECT"),
        disable_prefetch=_flag(False),
        disable_rate_limits=_flag(False, old="CELERY_DISABLE_RATE_LIMITS"),
        enable_prefetch_count_reduction=_flag(True),
        enable_remote_control=_flag(True, old="CELERY_ENABLE_REMOTE_CONTROL"),
        enable_soft_shutdown_on_idle=_flag(False),
        eta_task_limit=_int(),
        hijack_root_logger=_flag(True),
        log_color=_flag(),
        log_datefmt=_text(),
        log_format=_text(DEFAULT_PROCESS_LOG_FMT),
        lost_wait=_float(10.0, old="CELERYD_WORKER_LOST_WAIT"),
        max_memory_per_child=_int(),
        max_tasks_per_child=_int(),
        pool=_text(DEFAULT_POOL),
        pool_putlocks=_flag(True),
        pool_restarts=_flag(False),
        pool_start_method=_text("fork"),
        prefetch_multiplier=_int(4),
        proc_alive_timeout=_float(4.0),
        redirect_stdouts=_flag(True, old="CELERY_REDIRECT_STDOUTS"),
        redirect_stdouts_level=_text("WARNING", old="CELERY_REDIRECT_STDOUTS_LEVEL"),
        send_task_events=_flag(False, old="CELERY_SEND_EVENTS"),
        soft_shutdown_timeout=_float(0.0),
        state_db=_text(),
        task_log_datefmt=_text(),
        task_log_format=_text(DEFAULT_TASK_LOG_FMT),
        timer=_text(),
        timer_precision=_float(1.0),
    ),
)
