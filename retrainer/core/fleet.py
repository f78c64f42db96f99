"""What the other models of the ledger are doing: read from it just before a decision that has to know."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Another model whose execution is planned or runs."""

    model: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """An execution of another model; its cost is None until it is known."""

    model: str
    at: datetime
    cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """All models but the one that is decided on; `waiting` are those with triggers kept."""

    running: tuple[Running, ...] = ()
    waiting: tuple[str, ...] = ()
    starts: tuple[Start, ...] = ()


ALONE: Final = Fleet()
"""What a model knows of others whose policy asks for nothing about them."""
