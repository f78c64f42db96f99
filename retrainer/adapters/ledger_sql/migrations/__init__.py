"""How older ledgers become today's: Alembic's revisions, run by `ledger_sql.migrate` alone."""
