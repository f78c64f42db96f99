"""Batches as profiles: each is read once for each grid, and then known: in memory, in S3, and only then by its rows.

What is stored follows from names and contents alone, so two workers that race write the same bytes. An object that is
missing, broken or of another grid is made anew; one that cannot be stored is made anew by the next worker.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol, TypeVar, cast

import numpy as np
import pyarrow as pa

from retrainer.adapters.datasets import monitor
from retrainer.adapters.datasets.formats import Asked, Format, Rows, UnusableError, ending
from retrainer.adapters.datasets.remembered import Remembered
from retrainer.core.window import Batch, Refusal
from retrainer.drift import derived, keys, stored
from retrainer.drift import grid as grids
from retrainer.drift import profile as profiling
from retrainer.drift.grid import CategoryGrid, Grid, NumberGrid, Spec
from retrainer.drift.profile import Builder, Categories, MixedZonesError, Numbers, Profile
from retrainer.drift.stored import BrokenProfileError
from retrainer.drift.values import Kind, Values, WrongTypeError, numbers, texts

CACHE_BYTES = 256 << 20

STATISTICS, CONSTRAINTS = "statistics.json", "constraints.json"

GROUPS_MAX = 128
"""Row groups that a grid is chosen from, in all batches together."""

_MERGED = 16
"""So many profiles of a window are in memory beside their sum."""

_Held = TypeVar("_Held", Grid, Profile)

_NAME_BYTES = 100
"""A text and its place in a collection."""

_READ_AS: Mapping[str, Kind] = {"numerical": "number", "categorical": "text", "embedding": "vector", "image": "image"}
_NOTHING = Grid(columns={}, projections={})


class Source(Protocol):
    """Where batches are read and profiles kept: S3, or a history."""

    def stream(
        self, batch: Batch, asked: Asked, written_as: Format, *, groups_max: int | None = None
    ) -> Iterator[Rows]:
        """Chunk by chunk. Raises UnusableError, at any chunk, or TransientError or PermanentError."""
        ...

    def resolved(self, batch: Batch) -> Batch:
        """The batch with its version where it has none: a fixed reference is named by its key alone."""
        ...

    def load(self, bucket: str, key: str) -> bytes | None:
        """What is stored there, if it can be had."""
        ...

    def save(self, bucket: str, key: str, body: bytes) -> None:
        """Store it, if that can be done."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is counted of each batch, what else it must have, and where the profiles are: nowhere without a prefix.

    `written_as` is the batches' format; by default that of each key's ending.
    """

    spec: Spec
    bucket: str = ""
    prefix: str = ""
    required: tuple[str, ...] = ()
    timestamp: str | None = None
    written_as: Format | None = None

    @property
    def asked(self) -> Asked:
        wants = [(name, _READ_AS[kind]) for name, kind in self.spec.items()]
        return Asked(wants, self.required, self.timestamp)

    @property
    def demand(self) -> keys.Demand:
        return keys.Demand(required=self.required, timestamp=self.timestamp, written_as=self.written_as)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A batch that cannot be used, and the column that is to blame where it is one."""

    refusal: Refusal
    column: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The batches of a window that could be used, with their rows, the others, and the sum of their profiles.

    `zoned` counts the batches whose timestamps have a time zone, and those that have none.
    """

    profile: Profile | None = None
    batches: tuple[Batch, ...] = ()
    unread: tuple[Unread, ...] = ()
    zoned: tuple[int, int] = (0, 0)

    @property
    def rows(self) -> int:
        return self.profile.rows if self.profile else 0

    @property
    def refused(self) -> tuple[Refusal, ...]:
        return tuple(u.refusal for u in self.unread)


class Profiles:
    """Grids and profiles by name. `cache_bytes` bounds those that are remembered."""

    def __init__(self, source: Source, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._source = source
        self._known: Remembered[str, Grid | Profile] = Remembered(cache_bytes, _size)

    def against(self, grid_of: Sequence[Batch], reference: Sequence[Batch], watch: Watch) -> tuple[Grid, Window]:
        """The grid chosen from batches, and the reference on it; statistics of Model Monitor are both at once.

        Raises TransientError or PermanentError, as all that follow.
        """
        if len(reference) == 1 and reference[0].key.endswith(STATISTICS):
            return self._monitored(reference[0], watch)
        known = [self._source.resolved(batch) for batch in reference]
        grid = self.grid([self._source.resolved(batch) for batch in grid_of], watch)
        if not grid.columns:
            grid = self.grid(known, watch)
        return grid, self.reference(known, grid, watch)

    def grid(self, batches: Sequence[Batch], watch: Watch) -> Grid:
        """Chosen from those of the batches that can be read; one without columns where none can or none is watched."""
        key = keys.grid_key(watch.prefix, [b.identity for b in batches], watch.spec, watch.demand)
        if not watch.spec or not batches:
            return _NOTHING
        found = self._kept(key, watch, stored.load_grid, lambda grid: bool(grid.columns))
        if found is None:
            found = self._chosen(batches, watch)
            if found is not _NOTHING:
                self._keep(key, watch, found)
        return found

    def batch(self, batch: Batch, grid: Grid, watch: Watch) -> Profile | Unread:
        """The batch on the grid, or why it cannot be used."""
        key = keys.profile_key(watch.prefix, grid.id, batch.identity, watch.demand)
        found = self._kept(key, watch, stored.load_profile, _fits(grid))
        if found is None:
            made = self._counted(batch, grid, watch)
            if isinstance(made, Unread):
                return made
            self._keep(key, watch, found := made)
        return found

    def window(self, batches: Sequence[Batch], grid: Grid, watch: Watch) -> Window:
        """The sum of the batches."""
        return self._summed(batches, grid, watch, profiling.merge, _MERGED)

    def reference(self, batches: Sequence[Batch], grid: Grid, watch: Watch) -> Window:
        """The sum of the batches, and how much more than chance they differ."""
        if not grid.columns or not batches:
            return self.window(batches, grid, watch)
        key = keys.reference_key(watch.prefix, grid.id, [b.identity for b in batches], watch.demand)
        known = self._kept(key, watch, stored.load_profile, _fits(grid))
        if known:
            return Window(profile=known, batches=tuple(batches))
        found = self._summed(batches, grid, watch, profiling.reference, len(batches))
        if found.profile and not found.unread:
            self._keep(key, watch, found.profile)
        return found

    def rows(self, name: str, batches: Sequence[Batch], grid: Grid, watch: Watch) -> Values | None:
        """One column of the grid, row by row; None where a batch is not to be had any more."""
        parts: list[Values] = []
        spec = next({base: kind} for base, kind in watch.spec.items() if name in derived.names({base: kind}))
        one = replace(watch, spec=spec, required=(), timestamp=None)
        try:
            for batch in batches:
                for rows in self._rows(batch, one):
                    made = derived.spread(_columns(rows), spec, grid.projections)[name]
                    parts.append(texts(made) if pa.types.is_dictionary(made.type) else numbers(made))
        except (UnusableError, WrongTypeError):
            return None
        if not parts:
            return None
        return cast(Values, np.concatenate(parts))

    def _monitored(self, batch: Batch, watch: Watch) -> tuple[Grid, Window]:
        """Constraints beside the statistics add the categories that are allowed."""
        beside = batch.key.removesuffix(STATISTICS) + CONSTRAINTS
        documents = [body for key in (batch.key, beside) if (body := self._source.load(batch.bucket, key)) is not None]
        try:
            grid, profile = monitor.baseline(documents, watch.spec)
        except monitor.MonitorError as error:
            return _NOTHING, Window(unread=(_unread(batch, str(error)),))
        return grid, Window(profile=profile, batches=(replace(batch, rows=profile.rows),))

    def _summed(
        self,
        batches: Sequence[Batch],
        grid: Grid,
        watch: Watch,
        merge: Callable[[Sequence[Profile]], Profile],
        at_once: int,
    ) -> Window:
        held: list[Profile] = []
        read: list[Batch] = []
        unread: list[Unread] = []
        zoned = [0, 0]
        for batch in batches:
            found = self.batch(batch, grid, watch)
            if isinstance(found, Unread):
                unread.append(found)
                continue
            read.append(replace(batch, rows=found.rows))
            if found.zoned is not None:
                zoned[not found.zoned] += 1
            held.append(found)
            if len(held) > at_once:
                held = [merge(held)]
        profile = merge(held) if held else None
        return Window(profile=profile, batches=tuple(read), unread=tuple(unread), zoned=(zoned[0], zoned[1]))

    def _chosen(self, batches: Sequence[Batch], watch: Watch) -> Grid:
        rows = self._sampled(batches, watch)
        first = next(rows, None)
        if first is None:
            return _NOTHING
        return grids.choose(chain([first], rows), watch.spec)

    def _sampled(self, batches: Sequence[Batch], watch: Watch) -> Iterator[Mapping[str, pa.ChunkedArray]]:
        """The columns of all rows, or of enough of them; a batch that cannot be read is told of when it is counted."""
        groups_max = max(1, GROUPS_MAX // len(batches))
        types: Mapping[str, pa.DataType] = {}
        for batch in batches:
            try:
                for rows in self._rows(batch, watch, groups_max):
                    columns = _columns(rows)
                    held = {name: column.type for name, column in columns.items()}
                    types = types or held
                    if held == types:  # vectors of another length are none of this model's
                        yield columns
            except UnusableError:
                continue

    def _counted(self, batch: Batch, grid: Grid, watch: Watch) -> Profile | Unread:
        """Nothing in a batch is allowed to end the measurement: what cannot be counted is refused."""
        builder = Builder(grid, watch.spec if grid.columns else {}, "#".join(batch.identity))
        count = 0
        try:
            for rows in self._rows(batch, watch):
                builder.add(_columns(rows) if grid.columns else {}, rows.times)
                count += rows.count
        except UnusableError as error:
            return _unread(batch, str(error), error.column)
        except MixedZonesError as error:
            return _unread(batch, f"column {watch.timestamp!r}: {error}", watch.timestamp)
        except WrongTypeError as error:
            return _unread(batch, f"one of its columns {error}")
        except (ValueError, ArithmeticError, pa.ArrowException) as error:
            return _unread(batch, f"it cannot be counted: {type(error).__name__}: {str(error)[:200]}")
        return replace(builder.profile(), rows=count)

    def _rows(self, batch: Batch, watch: Watch, groups_max: int | None = None) -> Iterator[Rows]:
        written_as = watch.written_as or ending(batch.key)
        return self._source.stream(batch, watch.asked, written_as, groups_max=groups_max)

    def _kept(
        self, key: str, watch: Watch, load: Callable[[bytes], _Held], fits: Callable[[_Held], bool]
    ) -> _Held | None:
        if (known := self._known.get(key)) is not None:
            return known  # type: ignore[return-value]  # a key names what is kept under it
        body = self._source.load(watch.bucket, key) if watch.prefix else None
        if body is None:
            return None
        try:
            found = load(body)
        except BrokenProfileError:
            return None
        if not fits(found):
            return None
        self._known.put(key, found)
        return found

    def _keep(self, key: str, watch: Watch, made: Grid | Profile) -> None:
        if watch.prefix:
            self._source.save(watch.bucket, key, stored.dump(made))
        self._known.put(key, made)


def _fits(grid: Grid) -> Callable[[Profile], bool]:
    return lambda profile: profile.grid == grid.id and profile.columns.keys() == grid.columns.keys()


def _columns(rows: Rows) -> Mapping[str, pa.ChunkedArray]:
    return {name: column for (name, _), column in rows.columns.items()}


def _unread(batch: Batch, why: str, column: str | None = None) -> Unread:
    return Unread(refusal=Refusal(bucket=batch.bucket, key=batch.key, version=batch.version, why=why), column=column)


def _size(held: Grid | Profile) -> int:
    """In memory, about: a text of a sample is one object in many rows."""
    size = 0
    for column in held.columns.values():
        match column:
            case NumberGrid():
                size += column.edges.nbytes
            case CategoryGrid():
                size += _NAME_BYTES * len(column.names)
            case Numbers():
                size += column.counts.nbytes + column.sums.nbytes
            case Categories():
                size += column.counts.nbytes + _NAME_BYTES * len(column.unseen)
    return size if isinstance(held, Grid) else size + 2 * held.sample.priorities.nbytes * (1 + len(held.columns))
