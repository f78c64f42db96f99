"""NannyML's alerts, in its own environment: `python -m bench.stationary.nannyml_alerts FOLDER CHUNK_ROWS`.

Reads N.reference.parquet and N.current.parquet, and writes N.npy: a row of booleans a chunk, one a column.
"""

import importlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"


def main() -> None:
    warnings.simplefilter("ignore")
    folder, rows = Path(sys.argv[1]), int(sys.argv[2])
    for reference in sorted(folder.glob("*.reference.parquet")):
        number = reference.name.partition(".")[0]
        np.save(folder / f"{number}.npy", _alerts(reference, folder / f"{number}.current.parquet", rows))


def _alerts(reference: Path, current: Path, rows: int) -> NDArray[np.bool_]:
    pandas: Any = importlib.import_module("pandas")
    engine: Any = importlib.import_module("nannyml")
    old, new = pandas.read_parquet(reference), pandas.read_parquet(current)
    calculator = engine.UnivariateDriftCalculator(
        column_names=list(old.columns),
        treat_as_categorical=[name for name in old.columns if old[name].dtype.kind not in "fi"],
        chunk_size=rows,
    )
    found = calculator.fit(old).calculate(new).filter(period="analysis").to_df(multilevel=True)
    return np.stack([found[name, "jensen_shannon", "alert"].to_numpy(bool) for name in old.columns], axis=1)


if __name__ == "__main__":
    main()
