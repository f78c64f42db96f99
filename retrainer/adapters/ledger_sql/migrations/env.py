"""What Alembic runs first: it migrates on the connection it is given, in that connection's transaction."""

from alembic import context

from retrainer.adapters.ledger_sql import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    version_table=schema.ledger_revision.name,
)
context.run_migrations()
