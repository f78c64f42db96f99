"""NannyML's univariate drift with its defaults: Jensen-Shannon of every column in ten chunks, its reference fitted.

Its threshold is three standard deviations of the reference's own chunks. It runs in an environment of its own.
"""

import importlib
import os
import warnings
from pathlib import Path
from typing import Any

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"
pd: Any = importlib.import_module("pandas")
nannyml: Any = importlib.import_module("nannyml")

TEST = {"numerical": "jensen_shannon of ten chunks", "categorical": "jensen_shannon of ten chunks"}
warnings.simplefilter("ignore")


def reference(folder: Path, columns: dict[str, str], stored: Path) -> None:
    """Its fit, kept as it keeps it: pickled."""
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=list(columns),
        treat_as_categorical=[name for name, kind in columns.items() if kind == "categorical"],
    )
    calculator.fit(pd.read_parquet(folder))
    nannyml.io.store.FilesystemStore(str(stored)).store(calculator, filename="calculator.pkl")


def verdict(reference: Path, current: Path, columns: dict[str, str], stored: Path) -> dict[str, tuple[float, bool]]:
    """Its ten chunks of the current window: their mean, and whether most of them are an alert to it."""
    calculator = nannyml.io.store.FilesystemStore(str(stored)).load(filename="calculator.pkl")
    found = calculator.calculate(pd.read_parquet(current)).filter(period="analysis").to_df(multilevel=True)
    chunks = {name: found[name, "jensen_shannon"] for name in columns}
    return {name: (float(c["value"].mean()), bool(c["alert"].mean() > 0.5)) for name, c in chunks.items()}
