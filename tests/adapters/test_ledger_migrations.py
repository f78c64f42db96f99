"""Ledgers of every age open: new ones are made as the migrations would make them, older ones are migrated."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text

from retrainer.adapters.ledger_sql import SqlLedger, migrate, schema
from retrainer.core.record import canonical, digest, dump
from retrainer.core.state import ModelState
from retrainer.ports import Committed, ConfigError
from retrainer.replay import NO_POLICY, walk
from tests.fakes.story import START, Story, arrived, decided, requested
from tests.postgres import PostgresServer

OLD_TABLES = """
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE events (
    identity VARCHAR NOT NULL, model VARCHAR NOT NULL, kind VARCHAR NOT NULL, recorded_at BIGINT NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (identity, model)
);
CREATE TABLE model_state (
    model VARCHAR NOT NULL, version BIGINT NOT NULL, wake_at BIGINT, execution_active VARCHAR, body TEXT NOT NULL,
    PRIMARY KEY (model)
);
CREATE TABLE decisions (
    number {number}, id VARCHAR NOT NULL, model VARCHAR NOT NULL, version BIGINT NOT NULL, at BIGINT NOT NULL,
    event_kind VARCHAR NOT NULL, event_identity VARCHAR NOT NULL, reason VARCHAR NOT NULL, detail TEXT NOT NULL,
    policy_hash VARCHAR NOT NULL, state_hash_before VARCHAR NOT NULL, state_hash_after VARCHAR NOT NULL,
    PRIMARY KEY (number), UNIQUE (id), UNIQUE (model, version), UNIQUE (event_identity, model),
    FOREIGN KEY(event_identity, model) REFERENCES events (identity, model)
);
CREATE TABLE effects (
    number {number}, key VARCHAR NOT NULL, model VARCHAR NOT NULL, kind VARCHAR NOT NULL, decision VARCHAR NOT NULL,
    status VARCHAR NOT NULL, tries INTEGER NOT NULL, due_at BIGINT NOT NULL, leased_until BIGINT,
    created_at BIGINT NOT NULL, last_error TEXT, body TEXT NOT NULL,
    PRIMARY KEY (number), UNIQUE (key), FOREIGN KEY(decision) REFERENCES decisions (id)
);
CREATE INDEX ix_effects_decision ON effects (decision);
CREATE INDEX effects_owed ON effects (due_at) WHERE status = 'owed';
CREATE TABLE executions (
    name VARCHAR NOT NULL, model VARCHAR NOT NULL, generation BIGINT NOT NULL, decision VARCHAR NOT NULL,
    status VARCHAR NOT NULL, attempt INTEGER NOT NULL, planned_at BIGINT NOT NULL, started_at BIGINT, ended_at BIGINT,
    arn VARCHAR, outcome TEXT, cause TEXT,
    PRIMARY KEY (name), UNIQUE (model, generation), FOREIGN KEY(decision) REFERENCES decisions (id)
);
CREATE UNIQUE INDEX executions_planned ON executions (model) WHERE status = 'PLANNED';
CREATE UNIQUE INDEX executions_active ON executions (model) WHERE status IN ('PLANNED', 'RUNNING');
CREATE TABLE fires (model VARCHAR NOT NULL, schedule VARCHAR NOT NULL, cursor BIGINT NOT NULL,
    PRIMARY KEY (model, schedule));
CREATE TABLE quarantine (queue VARCHAR NOT NULL, message_id VARCHAR NOT NULL, received_at BIGINT NOT NULL,
    why TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (queue, message_id));
INSERT INTO schema_version (version) VALUES (1);
"""
"""What SQLAlchemy wrote for revision 0001, when there was no Alembic yet."""


def old_file(path: Path) -> str:
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript(OLD_TABLES.format(number="INTEGER NOT NULL"))
    return f"sqlite:///{path}"


def old_database(server: PostgresServer) -> str:
    url = server.schema()
    with psycopg.connect(url) as raw:
        raw.execute(OLD_TABLES.format(number="BIGSERIAL NOT NULL"))
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if backend == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.schema()


@pytest.fixture
def old(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database as the first version left it."""
    if backend == "sqlite":
        return old_file(tmp_path / "ledger.db")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return old_database(server)


def differences(url: str) -> list[object]:
    """Between the database and `schema`, as Alembic finds them."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        compared = {"version_table": "ledger_revision", "compare_type": True}
        found = compare_metadata(MigrationContext.configure(connection, opts=compared), schema.metadata)
    engine.dispose()
    return list(found)


def described(url: str) -> object:
    """Every table with its columns, keys and indexes, as the database tells them."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        told = {table: _told(connection, table) for table in sorted(inspect(connection).get_table_names())}
    engine.dispose()
    return told


def _told(connection: Connection, table: str) -> list[str]:
    look = inspect(connection)
    parts = (look.get_columns(table), look.get_unique_constraints(table), look.get_indexes(table))
    keys = (look.get_pk_constraint(table), look.get_foreign_keys(table))
    return sorted(json.dumps(part, default=str, sort_keys=True) for kind in (*parts, [*keys]) for part in kind)


async def test_an_old_ledger_becomes_what_a_new_one_is(old: str, backend: str, request: pytest.FixtureRequest) -> None:
    await (await SqlLedger.open(old)).close()
    assert differences(old) == []
    server: PostgresServer | None = request.getfixturevalue("postgres_server") if backend == "postgres" else None
    new = server.schema() if server else old.replace("ledger.db", "new.db")
    await (await SqlLedger.open(new)).close()
    assert differences(new) == []
    assert described(old) == described(new)


def test_the_newest_migration_is_the_one_that_opening_asks_for() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).with_name("migrations")))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.HEAD]


def executed(url: str, statement: str) -> None:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


async def test_what_an_old_ledger_knows_is_kept_and_built_upon(old: str) -> None:
    first = decided(ModelState(model="recommender"), arrived("recommender", 1), START)
    state, event = first.decision.state, first.event
    # As a version wrote it that did not know of costs yet.
    written = canonical(
        {name: value for name, value in json.loads(dump(state)).items() if name not in ("costs", "spent")}
    )
    told = f"'recommender', 1, 0, 'ObjectCreated', '{event.identity}', 'evidence', '', 'h', '', '{digest(written)}'"
    columns = "id, model, version, at, event_kind, event_identity, reason, detail, policy_hash"
    for statement in (
        f"INSERT INTO events VALUES ('{event.identity}', 'recommender', 'ObjectCreated', 0, '{{}}')",  # noqa: S608
        f"INSERT INTO decisions ({columns}, state_hash_before, state_hash_after) VALUES ('recommender-1', {told})",  # noqa: S608
    ):
        executed(old, statement)
    body = written.replace(":", r"\:")
    executed(old, f"INSERT INTO model_state VALUES ('recommender', 1, NULL, NULL, '{body}')")  # noqa: S608
    ledger = await SqlLedger.open(old)
    assert await ledger.state("recommender") == state
    assert await ledger.commit([first]) == [Committed.DUPLICATE]
    await Story(ledger).tell(requested("r1"))
    last = await ledger.decision("recommender-2")
    assert last
    assert last.state_hash_before == digest(written)
    # What is decided from now on can be made again, and what was before is told.
    first_of_all, replayed = [replayed async for replayed in walk(ledger, "recommender")]
    assert (first_of_all.cannot, replayed.cannot, replayed.differences) == (NO_POLICY, "", ())
    await ledger.close()


async def test_replicas_that_start_together_make_or_migrate_the_ledger_once(
    backend: str, url: str, request: pytest.FixtureRequest
) -> None:
    if backend == "sqlite":
        await (await SqlLedger.open(url)).close()
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    for database in (url, old_database(server)):
        replicas = await asyncio.gather(*(SqlLedger.open(database) for _ in range(3)))
        assert differences(database) == []
        for replica in replicas:
            await replica.close()


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_newer_ledger_is_refused_with_what_to_do(url: str, read_only: bool) -> None:
    await (await SqlLedger.open(url)).close()
    executed(url, "UPDATE ledger_revision SET version_num = '0099'")
    with pytest.raises(ConfigError, match=r"is revision 0099, this retrainer knows revision .* use the retrainer that"):
        await SqlLedger.open(url, read_only=read_only)


async def test_an_old_ledger_is_not_migrated_by_who_only_reads(old: str) -> None:
    with pytest.raises(ConfigError, match=r"is revision 0001.*start the daemon once to bring it up to date"):
        await SqlLedger.open(old, read_only=True)


async def test_a_database_with_a_table_of_that_name_is_left_alone(url: str) -> None:
    executed(url, "CREATE TABLE events (id INTEGER)")
    for read_only in (False, True):
        with pytest.raises(ConfigError, match="this database is no ledger; name another one"):
            await SqlLedger.open(url, read_only=read_only)


OPENING = """
import asyncio, sys
from retrainer.adapters.ledger_sql import SqlLedger

async def main():
    for _ in range(2):
        await (await SqlLedger.open(sys.argv[1])).close()

asyncio.run(main())
print(*(name for name in ("alembic", "sqlalchemy.dialects.postgresql", "psycopg") if name in sys.modules))
"""


@pytest.mark.system
def test_a_daemon_whose_ledger_is_new_or_up_to_date_starts_without_what_it_does_not_need(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPENING, f"sqlite:///{tmp_path / 'ledger.db'}"]
    asked = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert asked.stdout == "\n"
