"""URLs without their passwords, as Celery shows them. Pure."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["sanitize_url"]

_MASK = "*" * 8
_SECRET_KEYS = {"accountkey", "sharedaccesssignature"}


def sanitize_url(url: Any, mask: str = _MASK) -> Any:
    """Return a URL with `mask` in place of its passwords; several, by `;` or `,`, may share it.

    What cannot be read is hidden rather than shown.
    """
    if not url or not isinstance(url, str):
        return url
    try:
        return _sanitized(url, mask)
    except Exception:  # whatever a URL's class does, no password is shown
        if "@" in url and "://" in url:
            return re.sub(r"(://[^:@/]*:)[^@/]*(?=@)", rf"\g<1>{mask}", url)
        return "<unparsable url>"


def _sanitized(url: str, mask: str) -> str:
    if "://" not in url:
        return url
    parts = url.split(";")
    if any("://" in part for part in parts[1:]) and not url.startswith("azureblockblob:"):
        return ";".join(_sanitized(part.strip(), mask) for part in parts)
    scheme, _, rest = url.partition("://")
    if scheme == "azureblockblob":
        return f"{scheme}://{_connection_string(rest, mask)}"
    found = re.search(r"[/?#]", rest)
    end = found.start() if found else len(rest)
    return f"{scheme}://{_authority(rest[:end], mask)}{rest[end:]}"


def _authority(text: str, mask: str) -> str:
    """Return hosts, each perhaps with credentials, of which none shows its password."""
    between = next((sign for sign in ";," if sign in text), "")
    chunks = [chunk.strip() for chunk in text.split(between) if chunk.strip()] if between else []
    if "@" not in text:
        return between.join(chunks) if between else text
    if len(chunks) > 1 and _are_servers(chunks):
        return between.join(_server(chunk, mask) for chunk in chunks)
    user, _, host = text.rpartition("@")
    if text.count("@") > 1 and ":" not in user:
        return f"{mask}@{host}"
    return _server(text, mask)


def _are_servers(chunks: list[str]) -> bool:
    """Say whether a sign stood between servers, and not within a password."""
    users = [chunk.rpartition("@")[0] for chunk in chunks if "@" in chunk]
    hosts = [chunk for chunk in chunks if "@" not in chunk]
    return all(":" in user for user in users) and not any(host.startswith(":") for host in hosts)


def _server(text: str, mask: str) -> str:
    user, at, host = text.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{name}{colon}{mask if colon else ''}{at}{host}"


def _connection_string(text: str, mask: str) -> str:
    """Return `key=value;...` of Azure without its keys and signatures."""
    shown = []
    for part in text.split(";"):
        key, equals, value = part.partition("=")
        if equals and key.strip().lower() in _SECRET_KEYS:
            part = f"{key}={mask}"
        elif value:
            hidden = re.sub(r"([?&]sig=)[^&;#]*", rf"\g<1>{mask}", value, flags=re.IGNORECASE)
            part = f"{key}={hidden}"
        shown.append(part)
    return ";".join(shown)
