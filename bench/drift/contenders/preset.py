"""Evidently's DataDriftPreset as its documentation has it, the columns' types declared."""

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

TEST = {"numerical": "wasserstein", "categorical": "jensenshannon"}
"""What it chooses for a reference of more than 1,000 rows, with a threshold of 0.1."""


def reference(folder: Path, columns: dict[str, str], stored: Path) -> None:
    """Nothing: it has no way to store any of it."""


def verdict(reference: Path, current: Path, columns: dict[str, str], stored: Path) -> dict[str, tuple[float, bool]]:
    """Read both windows, make the report, and take each column's value from it."""
    definition = DataDefinition(
        numerical_columns=[name for name, kind in columns.items() if kind == "numerical"],
        categorical_columns=[name for name, kind in columns.items() if kind == "categorical"],
    )
    old, new = (Dataset.from_pandas(pd.read_parquet(folder), definition) for folder in (reference, current))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = Report([DataDriftPreset()]).run(new, old).dict()
    scores = {}
    for metric in found["metrics"]:
        if name := re.match(r"ValueDrift\(column=([^,)]+)", metric["metric_name"]):
            value = float(metric["value"])
            scores[name[1]] = (value, value >= 0.1)
    return scores
