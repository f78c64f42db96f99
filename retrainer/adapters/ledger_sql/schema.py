"""The ledger's tables. The database itself forbids the worst: see the unique keys of `executions`."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """A moment as it is kept: whole microseconds since 1970 UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def storable(said: str) -> str:
    """Words of others as every database takes them: PostgreSQL has no NUL in a text, UTF-8 no half of a pair."""
    return said.replace("\0", "\ufffd").encode(errors="replace").decode()


class Moment(TypeDecorator[datetime]):
    """A moment as whole microseconds since 1970 UTC: exact, sorts, and the same number in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else microseconds(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + value * _MICROSECOND


def _number() -> Column[int]:
    """The order in which rows were written."""
    return Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


metadata = MetaData()

ledger_revision = Table(
    "ledger_revision",
    metadata,
    # Alembic's version table, under a name that is no other application's.
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="ledger_revision_pkc"),
)

events = Table(
    "events",
    metadata,
    # The identity first: the same fact may concern several models, and is looked for across them.
    Column("identity", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("recorded_at", Moment, nullable=False),
    # Empty once it was compacted, as the bodies of `effects` and `quarantine` are.
    Column("body", Text, nullable=False),
)

model_state = Table(
    "model_state",
    metadata,
    Column("model", String, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("wake_at", Moment),
    Column("execution_active", String),
    Column("body", Text, nullable=False),
    # The digest of the body, so that the next decision need not write down the state before it.
    Column("hash", String, nullable=False, server_default=""),
    # How many triggers wait; see the index of those that have some.
    Column("kept", Integer, nullable=False, server_default="0"),
)
_model_state_waiting = Index("model_state_waiting", model_state.c.model, sqlite_where=model_state.c.kept > 0)

policies = Table(
    "policies",
    metadata,
    # Every policy that anything was decided under, as canonical JSON; compacting leaves them.
    Column("hash", String, primary_key=True),
    Column("body", Text, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    _number(),
    Column("id", String, nullable=False, unique=True),
    Column("model", String, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
    Column("event_kind", String, nullable=False),
    Column("event_identity", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("detail", Text, nullable=False),
    Column("policy_hash", String, nullable=False),
    Column("state_hash_before", String, nullable=False),
    Column("state_hash_after", String, nullable=False),
    # The version that decided; before there was revision 0003 it was not written down.
    Column("recorded_by", String),
    # What was known of the other models, where the policy asks for it.
    Column("fleet", Text),
    # Every so often, so that any state is a few decisions away from one that was kept.
    Column("state_after", Text),
    UniqueConstraint("model", "version"),
    UniqueConstraint("event_identity", "model"),
    ForeignKeyConstraint(["event_identity", "model"], ["events.identity", "events.model"]),
)
_decisions_states = Index(
    "decisions_states", decisions.c.model, decisions.c.version, sqlite_where=decisions.c.state_after.is_not(None)
)

effects = Table(
    "effects",
    metadata,
    _number(),
    Column("key", String, nullable=False, unique=True),
    Column("model", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("decision", String, ForeignKey("decisions.id"), nullable=False, index=True),
    Column("status", String, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_at", Moment, nullable=False),
    Column("leased_until", Moment),
    Column("created_at", Moment, nullable=False),
    Column("last_error", Text),
    Column("body", Text, nullable=False),
)
_OWED = effects.c.status == "owed"
_effects_owed = Index("effects_owed", effects.c.due_at, sqlite_where=_OWED)

executions = Table(
    "executions",
    metadata,
    Column("name", String, primary_key=True),
    Column("model", String, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("decision", String, ForeignKey("decisions.id"), nullable=False),
    Column("status", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("planned_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("arn", String),
    Column("outcome", Text),
    Column("cause", Text),
    Column("cost", Double),
    UniqueConstraint("model", "generation"),
    Index("executions_planned_at", "planned_at"),
)
_PLANNED = executions.c.status == "PLANNED"
_ACTIVE = executions.c.status.in_(["PLANNED", "RUNNING"])
_executions_planned = Index("executions_planned", executions.c.model, unique=True, sqlite_where=_PLANNED)
_executions_active = Index("executions_active", executions.c.model, unique=True, sqlite_where=_ACTIVE)

fires = Table(
    "fires",
    metadata,
    Column("model", String, primary_key=True),
    Column("schedule", String, primary_key=True),
    Column("cursor", Moment, nullable=False),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("queue", String, primary_key=True),
    Column("message_id", String, primary_key=True),
    Column("received_at", Moment, nullable=False),
    Column("why", Text, nullable=False),
    Column("body", Text, nullable=False),
)

COUNTED = (events, model_state, policies, decisions, effects, executions, fires, quarantine)


def for_postgresql() -> None:
    """Have the partial indexes partial in PostgreSQL too. Not at once, because it imports SQLAlchemy's part for it:
    an eighth of a second that a daemon on SQLite need not spend.
    """
    for index in (_effects_owed, _executions_planned, _executions_active, _model_state_waiting, _decisions_states):
        index.dialect_kwargs["postgresql_where"] = index.dialect_kwargs["sqlite_where"]
