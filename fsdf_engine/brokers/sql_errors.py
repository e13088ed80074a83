"""What SQL servers and their clients say, as errors of ours, in one place.

https://www.postgresql.org/docs/current/errcodes-appendix.html,
https://mariadb.com/kb/en/mariadb-error-code-reference/
"""

from __future__ import annotations

import enum
import re

from ..errors import BrokerError, FsdfError, ServerRefused, Unanswered, Unavailable

__all__ = ["Blame", "blame_of", "translated"]


class Blame(enum.Enum):
    """Who is at fault."""

    NOBODY = enum.auto()  # the same again: a deadlock, or a conflict of transactions
    LOST = enum.auto()  # the connection
    AWAY = enum.auto()  # the server, for a while
    US = enum.auto()  # what is configured
    TABLE = enum.auto()  # a table that is not there, or not ours
    VALUE = enum.auto()


_REPEATED = {1205, 1213}
_LOST = {0, 1053, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 2002, 2003, 2006, 2013, 2014, 2027,
         2055, 4031}  # fmt: skip
_OURS = {1044, 1045, 1049, 1142, 1143, 1227, 1251, 1370, 1410, 1698, 2026, 2054, 2059, 3118,
         3159}  # fmt: skip
_TABLES = {1054, 1064, 1072, 1109, 1136, 1146, 1305, 1356, 1364}
_VALUES = {1048, 1062, 1153, 1264, 1265, 1292, 1366, 1406, 3140, 3819, 4025}
# What PostgreSQL refuses a connection with; the client keeps no code of it.
_PASSING = re.compile(
    r"starting up|shutting down|recovery|too many|remaining conn|terminat|not (yet )?accepting",
    re.IGNORECASE,
)
_WRITTEN = re.compile(r'invalid (\w+ value: |integer value |port number: )"')  # in the URL


def blame_of(error: BaseException) -> Blame | None:
    """Say whose fault a client's exception is; None: it is none of a client's."""
    # Under a hub it may be of a copy of the library; see `fsdf_engine.unpatched`.
    library = type(error).__module__.removeprefix("fsdf_unpatched.").partition(".")[0]
    if library == "psycopg":
        return _of_postgresql(error)
    if library == "pymysql":
        return _of_mysql(error)
    return Blame.LOST if isinstance(error, OSError) else None


def _of_postgresql(error: BaseException) -> Blame:
    state = getattr(error, "sqlstate", None) or ""
    kinds = {cls.__name__ for cls in type(error).__mro__}
    if not state:
        if kinds & {"OperationalError", "InterfaceError"}:
            text = str(error)
            refused = "FATAL" in text and not _PASSING.search(text)
            return Blame.US if refused or _WRITTEN.search(text) else Blame.LOST
        return Blame.VALUE if kinds & {"DataError", "ProgrammingError"} else Blame.AWAY
    if state in ("40001", "40P01"):
        return Blame.NOBODY
    if state in ("42P01", "42703", "42804", "42883", "42P10", "42809"):
        return Blame.TABLE
    if state[:2] in ("28", "3D", "3F", "42", "0A"):
        return Blame.US
    if state[:2] in ("22", "23", "21", "54"):
        return Blame.VALUE
    return Blame.LOST if state[:2] == "08" or state[:4] == "57P0" else Blame.AWAY


def _of_mysql(error: BaseException) -> Blame:
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    kinds = {cls.__name__ for cls in type(error).__mro__}
    for codes, blame in (
        (_REPEATED, Blame.NOBODY), (_OURS, Blame.US), (_TABLES, Blame.TABLE),
        (_VALUES, Blame.VALUE),
    ):  # fmt: skip
        if code in codes:
            return blame
    if code in _LOST and not kinds & {"DataError", "ProgrammingError", "NotSupportedError"}:
        return Blame.LOST
    return (
        Blame.VALUE if kinds & {"DataError", "IntegrityError", "ProgrammingError"} else Blame.AWAY
    )


def translated(error: BaseException, blame: Blame, shown: str, sent: bool) -> FsdfError:
    """Return one of our errors; `sent`: what was lost with the connection may have taken effect.

    A plain BrokerError blames a value.
    """
    text = " ".join(str(part) for part in error.args) or type(error).__name__
    text = " ".join(text.split())
    if blame is Blame.VALUE:
        return BrokerError(f"{shown} does not take a value ({text}); nothing was stored")
    if blame is Blame.US:
        return ServerRefused(
            f"{shown} refuses us ({text}); correct broker_url or SQLALCHEMY_URL, or the"
            " user's rights"
        )
    if blame is Blame.TABLE:
        return ServerRefused(
            f"a table in {shown} is not as this version of fsdf makes it ({text}): it is another"
            " program's, or a newer one's; name another database, or schema=, in broker_url"
            " or SQLALCHEMY_URL"
        )
    if blame is Blame.LOST and sent:
        return Unanswered(f"{shown} was lost ({text}); perhaps it has done what it was asked")
    if blame is Blame.LOST:
        return Unavailable(f"{shown} cannot be reached ({text}); is it running?")
    return Unavailable(f"{shown} cannot serve now ({text}); nothing was stored")
