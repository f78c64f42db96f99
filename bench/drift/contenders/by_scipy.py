"""scipy's own tests: Kolmogorov-Smirnov, and chi-square over the categories, each at 5 %."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

TEST = {"numerical": "ks", "categorical": "chisquare"}
LEVEL = 0.05


def reference(folder: Path, columns: dict[str, str], stored: Path) -> None:
    """Nothing: the tests take the rows."""


def verdict(reference: Path, current: Path, columns: dict[str, str], stored: Path) -> dict[str, tuple[float, bool]]:
    """Read both windows and test column after column."""
    old, new = (pd.read_parquet(folder) for folder in (reference, current))
    found = {name: _p_value(old[name].dropna(), new[name].dropna(), kind) for name, kind in columns.items()}
    return {name: (p, p < LEVEL) for name, p in found.items()}


def _p_value(old: "pd.Series[float]", new: "pd.Series[float]", kind: str) -> float:
    if kind == "numerical":
        return float(stats.ks_2samp(old.to_numpy(), new.to_numpy(), method="asymp").pvalue)
    counts = pd.concat([old.value_counts(), new.value_counts()], axis=1).fillna(0).to_numpy(np.float64)
    return float(stats.chi2_contingency(counts).pvalue)
