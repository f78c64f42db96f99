"""Which database a ledger's URL means."""

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from retrainer.adapters.ledger_sql import sqlite_file
from retrainer.adapters.ledger_sql.database import Database
from retrainer.ports import ConfigError

_WANTED = (
    "write sqlite:///ledger.db, sqlite:////var/lib/retrainer/ledger.db for an absolute path, "
    "or postgresql://user:password@host:5432/database"
)


def open_database(url: str, *, read_only: bool, busy_seconds: float) -> Database:
    """Open the ledger, and make or migrate its tables. Raises ConfigError for what has to be mended, TransientError."""
    parsed = _parsed(url)
    match parsed.get_backend_name():
        case "sqlite" if parsed.database not in (None, "", ":memory:"):
            return sqlite_file.open_file(str(parsed.database), read_only=read_only, busy_seconds=busy_seconds)
        case "postgresql" | "postgres" if parsed.database:
            from retrainer.adapters.ledger_sql import postgres

            return postgres.open_server(parsed, read_only=read_only)
        case _:
            shown = parsed.set(query={}).render_as_string(hide_password=True)
            raise ConfigError(f"{shown} is no ledger this version can keep; {_WANTED}")


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        # Not shown whole: a password may be in it.
        shown = url if "@" not in url else f"{url.split(':')[0]}:...@{url.rsplit('@', 1)[1]}"
        raise ConfigError(f"{shown!r} is not the URL of a ledger; {_WANTED}") from error
