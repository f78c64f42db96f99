"""The tables of the first ledgers, as they were."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    version = op.create_table("schema_version", sa.Column("version", sa.Integer(), nullable=False))
    op.bulk_insert(version, [{"version": 1}])
    op.create_table(
        "events",
        sa.Column("identity", sa.String(), primary_key=True),
        sa.Column("model", sa.String(), primary_key=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
    )
    op.create_table(
        "model_state",
        sa.Column("model", sa.String(), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("wake_at", sa.BigInteger()),
        sa.Column("execution_active", sa.String()),
        sa.Column("body", sa.Text(), nullable=False),
    )
    op.create_table(
        "decisions",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(), nullable=False, unique=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("event_kind", sa.String(), nullable=False),
        sa.Column("event_identity", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("policy_hash", sa.String(), nullable=False),
        sa.Column("state_hash_before", sa.String(), nullable=False),
        sa.Column("state_hash_after", sa.String(), nullable=False),
        sa.UniqueConstraint("model", "version"),
        sa.UniqueConstraint("event_identity", "model"),
        sa.ForeignKeyConstraint(["event_identity", "model"], ["events.identity", "events.model"]),
    )
    _create_effects()
    _create_executions()
    op.create_table(
        "fires",
        sa.Column("model", sa.String(), primary_key=True),
        sa.Column("schedule", sa.String(), primary_key=True),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "quarantine",
        sa.Column("queue", sa.String(), primary_key=True),
        sa.Column("message_id", sa.String(), primary_key=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
    )


def _create_effects() -> None:
    op.create_table(
        "effects",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("key", sa.String(), nullable=False, unique=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("decision", sa.String(), sa.ForeignKey("decisions.id"), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("leased_until", sa.BigInteger()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("body", sa.Text(), nullable=False),
    )
    op.create_index("ix_effects_decision", "effects", ["decision"])
    owed = sa.text("status = 'owed'")
    op.create_index("effects_owed", "effects", ["due_at"], sqlite_where=owed, postgresql_where=owed)


def _create_executions() -> None:
    op.create_table(
        "executions",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("decision", sa.String(), sa.ForeignKey("decisions.id"), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("planned_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger()),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("arn", sa.String()),
        sa.Column("outcome", sa.Text()),
        sa.Column("cause", sa.Text()),
        sa.UniqueConstraint("model", "generation"),
    )
    for name, where in (("planned", "status = 'PLANNED'"), ("active", "status IN ('PLANNED', 'RUNNING')")):
        which = sa.text(where)
        op.create_index(
            f"executions_{name}", "executions", ["model"], unique=True, sqlite_where=which, postgresql_where=which
        )
