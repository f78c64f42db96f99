"""Evidently's registered tests called one by one, as its ValueDrift does: what is left of it without the preset."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from evidently import ColumnType
from evidently.legacy.calculations.stattests import get_stattest

TEST = {"numerical": "wasserstein", "categorical": "jensenshannon"}
THRESHOLD = 0.1


def reference(folder: Path, columns: dict[str, str], stored: Path) -> None:
    """Nothing: the tests take the rows."""


def verdict(reference: Path, current: Path, columns: dict[str, str], stored: Path) -> dict[str, tuple[float, bool]]:
    """Read both windows and test column after column."""
    old, new = (pd.read_parquet(folder) for folder in (reference, current))
    return {name: _tested(old[name].dropna(), new[name].dropna(), kind) for name, kind in columns.items()}


def _tested(old: "pd.Series[float]", new: "pd.Series[float]", kind: str) -> tuple[float, bool]:
    column = ColumnType.Numerical if kind == "numerical" else ColumnType.Categorical
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = get_stattest(old, new, column, TEST[kind])(old, new, column, THRESHOLD)
    return float(found.drift_score), bool(found.drifted)
