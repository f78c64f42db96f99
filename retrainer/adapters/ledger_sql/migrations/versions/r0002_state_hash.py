"""A state's hash is kept beside it, and Alembic's version table takes the place of our own."""

from hashlib import sha256

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("model_state", sa.Column("hash", sa.String(), nullable=False, server_default=""))
    states = sa.table("model_state", sa.column("model"), sa.column("body"), sa.column("hash"))
    connection = op.get_bind()
    for model, body in connection.execute(sa.select(states.c.model, states.c.body)).all():
        hashed = sha256(body.encode()).hexdigest()
        connection.execute(sa.update(states).where(states.c.model == model).values(hash=hashed))
    op.drop_table("schema_version")
