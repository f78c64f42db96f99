"""The schema's revision: made anew, brought up to date, or refused."""

from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select, text

from retrainer.adapters.ledger_sql import schema
from retrainer.ports import ConfigError

HEAD = "0003"
"""The revision that `schema` describes; revisions are numbers of four digits, so that they sort."""

_MIGRATIONS = Path(__file__).with_name("migrations")
_MIGRATING = 0x72657472  # "retr": the advisory lock of whoever makes or migrates a ledger in a PostgreSQL database
_OURS = frozenset(schema.metadata.tables) - {"ledger_revision", "policies"}
"""The tables of the first revision."""


def revision(connection: Connection, name: str) -> str | None:
    """The revision of the ledger in this database, None where there is none yet.

    Raises ConfigError when it holds something else, or a newer ledger.
    """
    tables = set(inspect(connection).get_table_names())
    if "ledger_revision" in tables:
        found = str(connection.execute(select(schema.ledger_revision.c.version_num)).scalar_one())
    elif "schema_version" in tables and tables >= _OURS:
        found = "0001"
    elif tables & _OURS or (tables and connection.dialect.name == "sqlite"):
        raise ConfigError(f"{name}: this database is no ledger; name another one")
    else:
        return None
    if found > HEAD:
        raise ConfigError(
            f"{name}: its schema is revision {found}, this retrainer knows revision {HEAD} and older; "
            "use the retrainer that wrote it, or a newer one"
        )
    return found


def must_be_up_to_date(connection: Connection, name: str) -> None:
    """For a reader, who changes nothing. Raises ConfigError."""
    found = revision(connection, name)
    if found is None:
        raise ConfigError(f"{name}: there is no ledger here; mend the URL, or start the daemon once to make it")
    if found != HEAD:
        raise ConfigError(
            f"{name}: its schema is revision {found}, this retrainer reads revision {HEAD}; "
            "start the daemon once to bring it up to date"
        )


def bring_up_to_date(connection: Connection, name: str) -> None:
    """Make the tables of a new ledger, or migrate an older one, in the transaction of this connection."""
    if revision(connection, name) == HEAD:
        return
    if connection.dialect.name == "postgresql":
        # Of replicas that start together one does it, and the others find it done.
        connection.execute(text("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
    found = revision(connection, name)
    if found is None:
        # Quicker than going through every migration, and the same: tests/adapters/test_ledger_migrations.py.
        schema.metadata.create_all(connection)
        connection.execute(insert(schema.ledger_revision).values(version_num=HEAD))
    elif found != HEAD:
        _migrate(connection, found)


def _migrate(connection: Connection, found: str) -> None:
    # Imported only now: a daemon that finds its ledger up to date, as it nearly always does, starts without Alembic.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    if not inspect(connection).has_table("ledger_revision"):
        command.stamp(config, found)
    command.upgrade(config, "head")
