"""Words for messages: suggestions for misspelt names, URLs without their passwords."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["did_you_mean", "masked"]


def did_you_mean(word: str, known: Iterable[str], synonyms: Iterable[str] = ()) -> str:
    """Return what ends an error message: "; did you mean 'redis'?", or all that are known.

    A synonym may be suggested but is not listed.
    """
    from difflib import get_close_matches  # only errors need it, and it is slow to import

    names = sorted(set(known))
    by_folded = {name.casefold(): name for name in (*synonyms, *names)}
    if close := get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6):
        return f"; did you mean {by_folded[close[0]]!r}?"
    return f"; there are {', '.join(names)}" if names else ""


def masked(url: str) -> str:
    """Return a URL without anything that may be a password, fit for logs and messages.

    Whatever the URL lacks (a colon, an escape, a scheme), rather too much is hidden than too
    little. A path and other text without an `@` or a query are unchanged.
    """
    before, mark, rest = url.partition("://")
    if not mark:
        if re.match(r"[.~]*/(?!/)|\w:[\\/][^:]*\Z", url) or not re.search(
            r"@|\?.*=", url, re.DOTALL
        ):
            return url
        before, rest = "", url
    elif not _SCHEME.search(before):
        before = _HIDDEN
    place, ask, query = rest.partition("?")
    if "@" in query:  # nobody can tell whether it belongs to a password
        return f"{before}{mark}{_HIDDEN}"
    return f"{before}{mark}{_place(place)}{ask}{_query(query) if ask else ''}"


_HIDDEN = "***"
_SCHEME = re.compile(r"^[^:@]*?\b[a-zA-Z][\w+.-]*\Z")  # words may precede it
_HOST = re.compile(r"(\[[\w:.%]*\]|[\w.-]*)(:\d{0,5})?")
_PLAIN = {
    "charset", "client_name", "connect_timeout", "db", "health_check_interval", "heartbeat",
    "max_connections", "pool_size", "protocol", "schema", "socket_connect_timeout",
    "socket_keepalive", "socket_timeout", "ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile",
    "ssl_check_hostname", "ssl_keyfile", "sslmode", "timeout", "virtual_host",
}  # fmt: skip


def _place(text: str) -> str:
    """Return what stands between the scheme and the query: credentials, hosts, a path."""
    user, at, place = text.rpartition("@")
    if not at:
        hosts, slash, path = text.partition("/")
        shown = [host if _HOST.fullmatch(host) else _HIDDEN for host in hosts.split(",")]
        return ",".join(shown) + slash + path
    name, _, password = user.partition(":")
    if not password or not re.fullmatch(r"[\w.+%-]+", name):  # it may be the password itself
        return f"{':' if password and not name else ''}{_HIDDEN}@{place}"
    return f"{name}:{_HIDDEN}@{place}"


def _query(text: str) -> str:
    """Return options; the values of those only that are known to hold nothing secret."""
    shown, hidden = [], False
    for option in text.split("&"):
        name, equals, value = option.partition("=")
        plain = name.lower() in _PLAIN and re.fullmatch(r"[\w./:-]*", value)
        # without a known name it may still be part of the value before it
        named = plain or (equals and not hidden and re.fullmatch(r"\w+", name))
        shown.append(f"{name if named else ''}{equals}{value if plain else _HIDDEN}")
        hidden = hidden or not plain
    return "&".join(shown)
