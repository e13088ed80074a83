"""Names that configurations of old projects hold and this version has no use for, each with why."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from .spelling import did_you_mean

__all__ = ["LATER", "remark", "unknown_variables"]

_NO_BROKER = "of a broker that is not in this version"
LATER = {
    **dict.fromkeys(
        (
            "MONGO_CONNECT_URL", "NSQD_TCP_ADDRESSES", "NSQD_HTTP_CLIENT_HOST",
            "NSQD_HTTP_CLIENT_PORT", "KAFKA_BOOTSTRAP_SERVERS",
            "ROCKETMQ_NAMESRV_ADDR", "KOMBU_URL", "MQTT_HOST", "MQTT_TCP_PORT", "HTTPSQS_HOST",
            "HTTPSQS_PORT", "HTTPSQS_AUTH",
        ),
        _NO_BROKER,
    ),
    "SQLLITE_QUEUES_PATH": "a folder; SQLITE_PATH, a file, has its place",
    "NB_LOG_FORMATER_INDEX_FOR_CONSUMER_AND_PUBLISHER": "of a logger that is not in this version",
}  # fmt: skip
# Variables that are no keys: what steers children, tests, and the layer on top.
_OTHERS = {"FSDF_START_FOLDER", "FSDF_FORCE_GENERATOR", "FSDF_REQUIRE_SERVICES", "FSDF_AS_CELERY"}
_PREFIXES = ("FSDF_TEST_", "FSDF_CELERY_")


def remark(names: Iterable[str], known: Collection[str], prefix: str = "") -> str:
    """Return a list of names that are no keys, each with what can be said about it."""
    told = []
    for name in names:
        key = name[len(prefix) :]
        hint = LATER.get(key) or did_you_mean(key, known).removeprefix("; ").rstrip("?")
        if hint.startswith("there are"):  # all of them: nothing is like it
            hint = ""
        told.append(f"{name} ({hint})" if hint else name)
    return ", ".join(told)


def unknown_variables(known: Collection[str]) -> list[str]:
    """Return the environment variables FSDF_* that mean nothing to us."""
    return sorted(
        name
        for name in os.environ
        if name.startswith("FSDF_")
        and name[5:] not in known
        and name not in _OTHERS
        and not name.startswith(_PREFIXES)
    )
