"""`fsdf sql schema`: what makes the tables of an SQL database."""

from __future__ import annotations

from argparse import Namespace

from ..engine import default_engine
from ..errors import ConfigurationError
from .output import Commands

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Add the command."""
    sql = commands.add_parser("sql", help="tables of the SQL broker")
    parts = sql.add_subparsers(metavar="COMMAND", required=True)
    schema = parts.add_parser(
        "schema", help="print what makes them, for a user of the database who may run it"
    )
    schema.add_argument("--url", help="default: SQLALCHEMY_URL")
    schema.set_defaults(run=_schema)


def _schema(options: Namespace) -> int:
    from ..brokers.sql_place import is_sqlite
    from ..brokers.sql_schema import schema_text

    url = options.url or default_engine().config.text("SQLALCHEMY_URL")
    if is_sqlite(url):
        raise ConfigurationError("a SQLite file makes its tables by itself; nothing is to be run")
    print(schema_text(url), end="")
    return 0
