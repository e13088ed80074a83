"""The settings: what this version uses, with defaults, and what else Celery 5.7 knows."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

__all__ = ["DEFAULTS", "KNOWN", "OLD_NAMES"]

DEFAULTS: Mapping[str, Any] = {
    "accept_content": ("json",),
    "broker_url": None,
    "enable_utc": True,
    "fsdf_queue_suffix": ".flat",
    "imports": (),
    "include": (),
    "result_backend": None,
    "result_expires": datetime.timedelta(days=1),
    "result_serializer": "json",
    "task_acks_late": False,
    "task_always_eager": False,
    "task_default_priority": None,
    "task_default_queue": "celery",
    "task_ignore_result": False,
    "task_serializer": "json",
    "task_soft_time_limit": None,
    "task_time_limit": None,
    "timezone": None,
    "worker_concurrency": None,
    "worker_max_memory_per_child": None,
    "worker_max_tasks_per_child": None,
    "worker_pool": "prefork",
    "worker_pool_start_method": None,
}

# Kept when they are set, and named by the worker as not yet used.
_FAMILIES: Mapping[str, str] = {
    "arangodb": "backend_settings",
    "azureblockblob": "base_path connection_timeout container_name read_timeout"
    " retry_increment_base retry_initial_backoff_sec retry_max_attempts",
    "beat": "cron_starting_deadline enable_remote_control max_loop_interval"
    " remote_control_max_tick_age schedule schedule_filename scheduler sync_every",
    "broker": "channel_error_retry connection_max_retries connection_retry"
    " connection_retry_on_startup connection_timeout failover_strategy heartbeat"
    " heartbeat_checkrate host login_method native_delayed_delivery_queue_type password"
    " pool_acquire_timeout pool_limit port read_url transport transport_options use_ssl user"
    " vhost write_url",
    "cache": "backend backend_options",
    "cassandra": "auth_kwargs auth_provider bundle_path entry_ttl keyspace options port"
    " read_consistency servers table write_consistency",
    "control": "exchange queue_durable queue_exclusive queue_expires queue_ttl",
    "cosmosdbsql": "collection_name consistency_level database_name max_retry_attempts"
    " max_retry_wait_time",
    "couchbase": "backend_settings",
    "database": "create_tables_at_setup engine_callback engine_options short_lived_sessions"
    " table_names table_schemas url",
    "elasticsearch": "max_retries retry_on_timeout save_meta_as_text timeout",
    "event": "exchange queue_durable queue_exclusive queue_expires queue_prefix queue_ttl"
    " serializer",
    "gcs": "base_path bucket project ttl",
    "mongodb": "backend_settings",
    "redis": "backend_use_ssl db host max_connections password port retry_on_timeout"
    " socket_connect_timeout socket_keepalive socket_timeout username",
    "result": "accept_content backend_always_retry backend_base_sleep_between_retries_ms"
    " backend_max_retries backend_max_sleep_between_retries_ms backend_transport_options"
    " cache_max chord_expires chord_join_timeout chord_retry_interval compression exchange"
    " exchange_type extended failure_expires persistent",
    "s3": "access_key_id base_path bucket endpoint_url region secret_access_key",
    "security": "cert_store certificate digest key key_password",
    "task": "acks_on_failure acks_on_failure_or_timeout acks_on_timeout"
    " allow_error_cb_on_chord_header annotations compression"
    " create_missing_queue_exchange_type create_missing_queue_type create_missing_queues"
    " default_delivery_mode default_exchange default_exchange_type default_queue_type"
    " default_rate_limit default_routing_key eager_propagates inherit_parent_priority protocol"
    " publish_retry publish_retry_policy queue_max_priority queues reject_on_worker_lost"
    " remote_tracebacks repr_maxlevels retry_on_worker_lost routes send_sent_event"
    " store_eager_result store_errors_even_if_ignored track_started",
    "worker": "agent autoscaler cancel_long_running_tasks_on_connection_loss consumer"
    " deduplicate_successful_tasks detect_quorum_queues direct disable_prefetch"
    " disable_rate_limits enable_prefetch_count_reduction enable_remote_control"
    " enable_soft_shutdown_on_idle eta_task_limit hijack_root_logger log_color log_datefmt"
    " log_format lost_wait pool_putlocks pool_restarts prefetch_multiplier proc_alive_timeout"
    " redirect_stdouts redirect_stdouts_level send_task_events soft_shutdown_timeout state_db"
    " task_log_datefmt task_log_format timer timer_precision",
}
KNOWN = frozenset(
    f"{family}_{name}" for family, names in _FAMILIES.items() for name in names.split()
)

# Spellings from before version 4, of what this version uses.
OLD_NAMES: Mapping[str, str] = {
    "BROKER_URL": "broker_url",
    "CELERYD_CONCURRENCY": "worker_concurrency",
    "CELERYD_MAX_TASKS_PER_CHILD": "worker_max_tasks_per_child",
    "CELERYD_POOL": "worker_pool",
    "CELERYD_TASK_SOFT_TIME_LIMIT": "task_soft_time_limit",
    "CELERYD_TASK_TIME_LIMIT": "task_time_limit",
    "CELERY_ACCEPT_CONTENT": "accept_content",
    "CELERY_ACKS_LATE": "task_acks_late",
    "CELERY_ALWAYS_EAGER": "task_always_eager",
    "CELERY_DEFAULT_PRIORITY": "task_default_priority",
    "CELERY_DEFAULT_QUEUE": "task_default_queue",
    "CELERY_ENABLE_UTC": "enable_utc",
    "CELERY_IGNORE_RESULT": "task_ignore_result",
    "CELERY_IMPORTS": "imports",
    "CELERY_INCLUDE": "include",
    "CELERY_RESULT_BACKEND": "result_backend",
    "CELERY_RESULT_SERIALIZER": "result_serializer",
    "CELERY_TASK_RESULT_EXPIRES": "result_expires",
    "CELERY_TASK_SERIALIZER": "task_serializer",
    "CELERY_TIMEZONE": "timezone",
}
