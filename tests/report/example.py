"""A measurement of a made-up model: windows counted on a grid, and the evidence on them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from retrainer.core.evidence import ColumnDrift, Drifting, Evidence, Performance, Unusable
from retrainer.core.window import Batch, Refusal
from retrainer.drift.grid import CategoryGrid, Grid, NumberGrid, Spec, number_grid
from retrainer.drift.profile import Builder, Profile
from retrainer.drift.values import canonical
from retrainer.report.document import Document, Profiles, document

Columns = Mapping[str, Any]

SINCE = datetime(2026, 3, 2, 7, 30, tzinfo=UTC)


def grid(reference: Columns) -> Grid:
    return Grid({name: _grid(np.asarray(values)) for name, values in reference.items()}, {})


def counted(on: Grid, columns: Columns, seed: str = "batch") -> Profile:
    """The profile of one batch."""
    spec: Spec = {n: "numerical" if isinstance(held, NumberGrid) else "categorical" for n, held in on.columns.items()}
    builder = Builder(on, spec, seed)
    arrays = {name: pa.chunked_array([pa.array(values, from_pandas=True)]) for name, values in columns.items()}
    builder.add({n: canonical(a, "number" if spec[n] == "numerical" else "text") for n, a in arrays.items()})
    return builder.profile()


def profiles(reference: Columns, current: Columns, on: Grid | None = None) -> Profiles:
    held = on or grid(reference)
    return Profiles(
        grid=held, reference=counted(held, reference, "reference"), current=counted(held, current, "current")
    )


def _grid(values: Any) -> NumberGrid | CategoryGrid:
    if values.dtype != object:
        return number_grid(values.astype(np.float64))
    return CategoryGrid(tuple(sorted({value for value in values if value is not None})), complete=True)


@dataclass(frozen=True)
class Example:
    """Three columns: one far off, one a little, one not; and things that could not be used."""

    far: str = "amount"
    near: str = "age"
    category: str = "country"
    why: str = "it is empty, 0 bytes"

    def profiles(self, *, shift: float = 1.0) -> Profiles:
        rng = np.random.default_rng(3)
        countries = np.array(["DE", "FR", "GB", "US"], dtype=object)
        return profiles(
            {
                self.far: rng.normal(0, 1, 4_000),
                self.near: rng.integers(20, 60, 4_000).astype(float),
                self.category: countries[rng.integers(0, 4, 4_000)],
            },
            {
                self.far: rng.normal(shift, 1, 800),
                self.near: rng.integers(20, 60, 800).astype(float),
                self.category: np.array(["DE", "FR", self.category + "land"], dtype=object)[rng.integers(0, 3, 800)],
            },
        )

    def evidence(self) -> Evidence:
        drift = (
            ColumnDrift(column=self.near, test="psi", score=0.01, threshold=0.2, drifted=False, p_value=0.4),
            ColumnDrift(
                column=self.category,
                test="chisquare",
                score=1e-9,
                threshold=0.05,
                drifted=True,
                p_value=1e-12,
                unseen=0.33,
            ),
            ColumnDrift(
                column=self.far,
                test="wasserstein",
                score=0.98,
                low=0.97,
                high=0.99,
                threshold=0.1,
                drifted=True,
                p_value=1e-120,
                nulls=0.02,
            ),
        )
        return Evidence(
            rows=800,
            reference_rows=4_000,
            batches=(Batch(bucket="lake", key="data/m/new.parquet", version="1", size_bytes=9, rows=800),),
            refused=(Refusal(bucket="lake", key="data/m/bad.parquet", version="1", why=self.why),),
            unusable=(Unusable(column="ratio", why=f"12 of 800 values are infinite {self.why}"),),
            drift=drift,
            performance=Performance(metric="accuracy", value=0.8125, labels=640),
            began=datetime(2026, 3, 1, tzinfo=UTC),
            ended=datetime(2026, 3, 4, 5, tzinfo=UTC),
        )

    def document(self) -> Document:
        return document(
            model="m",
            decision="m-17",
            evidence=self.evidence(),
            reference=(Batch(bucket="lake", key="data/m/old.parquet", version="1", size_bytes=9, rows=4_000),),
            profiles=self.profiles(),
            since=(Drifting(column=self.far, since=SINCE),),
        )


def wide(columns: int) -> Document:
    """Every other of so many columns has drifted, the later the further."""
    rng = np.random.default_rng(1)
    names = [f"feature_{n:04d}" for n in range(columns)]
    both = profiles({n: rng.normal(size=200) for n in names}, {n: rng.normal(size=100) for n in names})
    one = ColumnDrift(column="", test="psi", score=0.0, threshold=0.1, drifted=False, p_value=0.5)
    drift = tuple(replace(one, column=n, score=0.05 + k, drifted=k % 2 == 0) for k, n in enumerate(names))
    return document(
        model="m",
        decision="m-1",
        evidence=Evidence(rows=100, reference_rows=200, drift=drift),
        reference=(),
        profiles=both,
    )
