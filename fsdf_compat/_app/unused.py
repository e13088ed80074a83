"""Settings that were set and change nothing here: what a worker says of them, once. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from ..app.defaults import _OLD_SETTING_KEYS, DEFAULTS, SETTING_KEYS

__all__ = ["misspelt", "without_effect"]

_RECONNECTS = "connections are restored by themselves, for as long as it takes"
_KOMBU = "it is about connections of kombu, which carry no tasks"
_NATIVE = "queues are not declared: a broker here has its own"
_EVENTS = "there are no events in this version"
_LATER = "not in this version"
_POOL = "pools here have no such part"
_REASONS: Mapping[str, str] = {
    "broker_channel_error_retry": _RECONNECTS,
    "broker_connection_max_retries": _RECONNECTS,
    "broker_connection_retry": _RECONNECTS,
    "broker_failover_strategy": "RabbitMQ and Redis Sentinel change over by themselves",
    "broker_heartbeat": _KOMBU,
    "broker_heartbeat_checkrate": _KOMBU,
    "broker_login_method": _KOMBU,
    "broker_native_delayed_delivery_queue_type": "what is due later waits in the broker itself",
    "result_exchange": _LATER,
    "result_exchange_type": _LATER,
    "result_persistent": _LATER,
    "security_cert_store": _LATER,
    "security_certificate": _LATER,
    "security_digest": _LATER,
    "security_key": _LATER,
    "security_key_password": _LATER,
    "task_compression": "messages are JSON that any program can read",
    "task_create_missing_queue_exchange_type": _NATIVE,
    "task_create_missing_queue_type": _NATIVE,
    "task_default_delivery_mode": "a message is stored before its sender goes on",
    "task_queue_max_priority": "every queue has all priorities",
    "task_send_sent_event": _EVENTS,
    "worker_agent": _POOL,
    "worker_autoscaler": _POOL,
    "worker_consumer": _POOL,
    "worker_detect_quorum_queues": _NATIVE,
    "worker_enable_prefetch_count_reduction": "a worker leases what it can run, and no more",
    "worker_eta_task_limit": "what is due later waits in the broker, and not in workers",
    "worker_pool_putlocks": _POOL,
    "worker_proc_alive_timeout": _POOL,
    "worker_send_task_events": _EVENTS,
    "worker_timer": _POOL,
    "worker_timer_precision": _POOL,
}


def without_effect(conf: Any) -> dict[str, str]:
    """Return the settings that were set, to other than their defaults, in vain, and why."""
    return {
        key: reason
        for key, reason in _REASONS.items()
        if conf.value_set_for(key) and conf[key] != DEFAULTS[key]
    }


def misspelt(conf: Any) -> dict[str, str]:
    """Return the names that were set, that nobody knows, and that resemble a setting's: with it."""
    found = {}
    for name in _names(conf):
        if close := difflib.get_close_matches(name, SETTING_KEYS, 1, 0.85):
            found[name] = close[0]
    return found


def _names(conf: Any) -> Iterator[str]:
    """Yield the unknown names that could be settings: in lower case, or with the prefix."""
    conf.finalize()
    prefix = (conf.prefix or "").upper()
    for mapping in conf.maps[:-1]:
        for key in [*mapping]:
            if not isinstance(key, str) or key in SETTING_KEYS or key in _OLD_SETTING_KEYS:
                continue
            value = mapping[key]
            if key.startswith("_") or callable(value) or isinstance(value, ModuleType):
                continue
            if prefix and key.startswith(prefix):
                key = key[len(prefix) :].lower()
                if key in SETTING_KEYS:
                    continue
            if key.islower():
                yield key
