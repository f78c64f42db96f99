"""What replaying needs: policies by their hash, states kept now and then, what was known of the other models."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "policies", sa.Column("hash", sa.String(), primary_key=True), sa.Column("body", sa.Text(), nullable=False)
    )
    op.add_column("model_state", sa.Column("kept", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("decisions", sa.Column("recorded_by", sa.String()))
    op.add_column("decisions", sa.Column("fleet", sa.Text()))
    op.add_column("decisions", sa.Column("state_after", sa.Text()))
    op.add_column("executions", sa.Column("cost", sa.Double()))
    _fill()
    waiting, is_there = sa.text("kept > 0"), sa.text("state_after IS NOT NULL")
    op.create_index("model_state_waiting", "model_state", ["model"], sqlite_where=waiting, postgresql_where=waiting)
    op.create_index(
        "decisions_states", "decisions", ["model", "version"], sqlite_where=is_there, postgresql_where=is_there
    )
    op.create_index("executions_planned_at", "executions", ["planned_at"])


def _fill() -> None:
    """The states of now are kept: what is decided from here on can be made again."""
    states = sa.table("model_state", *(sa.column(name) for name in ("model", "version", "body", "kept")))
    decisions = sa.table("decisions", *(sa.column(name) for name in ("model", "version", "state_after")))
    connection = op.get_bind()
    for model, version in connection.execute(sa.select(states.c.model, states.c.version)).all():
        body = connection.execute(sa.select(states.c.body).where(states.c.model == model)).scalar_one()
        kept = len(json.loads(body).get("kept", ()))
        connection.execute(sa.update(states).where(states.c.model == model).values(kept=kept))
        newest = (decisions.c.model == model, decisions.c.version == version)
        connection.execute(sa.update(decisions).where(*newest).values(state_after=body))
