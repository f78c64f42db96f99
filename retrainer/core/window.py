"""The batches of data a model has received: which are new, which were tried, which the champion has learned from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One S3 object of data, named by what S3 says of it.

    `rows` is None until the evidence worker has read the object. `tried` means that a finished execution was
    trained on it and its model was not promoted. `arrived_at` is None for what arrived before that was recorded, and
    for a fixed reference.
    """

    bucket: str
    key: str
    version: str
    size_bytes: int
    rows: int | None = None
    tried: bool = False
    arrived_at: datetime | None = None

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes it this batch: its bucket, key and version."""
        return self.bucket, self.key, self.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A batch that cannot be used, and the reason in one sentence."""

    bucket: str
    key: str
    version: str
    why: str

    @property
    def identity(self) -> tuple[str, str, str]:
        """That of the batch."""
        return self.bucket, self.key, self.version


_KEY = attrgetter("key")


def add(window: Sequence[Batch], batch: Batch, *, newest: int) -> tuple[Batch, ...]:
    """The window with `batch` at its end; an overwritten object replaces its older version. Keeps `newest` batches."""
    # Nearly always it is a new key, and a window is long.
    if batch.key in map(_KEY, window):
        window = tuple(b for b in window if (b.bucket, b.key) != (batch.bucket, batch.key))
    return (*window, batch)[-newest:]


def first(known: Sequence[Batch], batch: Batch, *, most: int) -> tuple[Batch, ...]:
    """The first `most` batches: with `batch`, if there are fewer yet; an overwritten object replaces its older one."""
    kept = tuple(b for b in known if (b.bucket, b.key) != (batch.bucket, batch.key))
    return (*kept, batch) if len(kept) < most else kept


def without(window: Sequence[Batch], gone: Iterable[Batch | Refusal]) -> tuple[Batch, ...]:
    """The window less the batches named (the same bucket, key and version)."""
    names = {g.identity for g in gone}
    return tuple(b for b in window if b.identity not in names)


def counted(window: Sequence[Batch], measured: Iterable[Batch]) -> tuple[Batch, ...]:
    """The window with the row counts that were measured; a batch whose count is known already stays the same object."""
    rows = {m.identity: m.rows for m in measured}
    found = ((b, rows.get(b.identity, b.rows)) for b in window)
    return tuple(b if count == b.rows else replace(b, rows=count) for b, count in found)


def tried(window: Sequence[Batch], used: Iterable[Batch]) -> tuple[Batch, ...]:
    """The window with the batches in `used` marked as tried."""
    names = {u.identity for u in used}
    return tuple(replace(b, tried=True) if not b.tried and b.identity in names else b for b in window)


def untried_rows(window: Iterable[Batch]) -> int:
    """Rows no finished execution has been trained on; a batch not yet read counts as 0."""
    return sum(b.rows or 0 for b in window if not b.tried)
