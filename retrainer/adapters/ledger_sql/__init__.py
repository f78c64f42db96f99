"""The ledger in SQL; `SqlLedger` is all that others need of it."""

from retrainer.adapters.ledger_sql.ledger import SqlLedger

__all__ = ["SqlLedger"]
