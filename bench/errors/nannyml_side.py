"""NannyML's CBPE on the data sets that come with it: run by its own Python, `nannyml_side.py FOLDER`.

Of each it writes NAME.npz: probability, prediction and label of the rows of the reference and of the analysis, and by
chunk what NannyML estimated and what it calls realised. NannyML and the project do not fit into one environment.
"""

import importlib
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 5_000
METRICS = ("roc_auc", "accuracy")
SETS = (
    ("car loan", "load_synthetic_car_loan_dataset", "repaid", "y_pred_proba", "y_pred"),
    ("work from home", "load_synthetic_binary_classification_dataset", "work_home_actual", "y_pred_proba", "y_pred"),
    ("census", "load_us_census_ma_employment_data", "employed", "predicted_probability", "prediction"),
)


def main() -> None:
    warnings.simplefilter("ignore")
    nannyml: Any = importlib.import_module("nannyml")
    for name, loader, label, probability, prediction in SETS:
        reference, analysis, targets = getattr(nannyml, loader)()
        columns = {"y_true": label, "y_pred_proba": probability, "y_pred": prediction}
        given = columns | {"problem_type": "classification_binary", "metrics": list(METRICS), "chunk_size": CHUNK}
        began = time.process_time()
        estimated = nannyml.CBPE(**given).fit(reference).estimate(analysis)
        took = time.process_time() - began
        on = [column for column in targets.columns if column != label]
        known = analysis.merge(targets, on=on) if on else analysis.assign(**{label: targets[label].to_numpy()})
        assert len(known) == len(analysis)
        realised = nannyml.PerformanceCalculator(**given).fit(reference).calculate(known)
        arrays = {
            f"{side}_{key}": frame[column].to_numpy(dtype=float)
            for side, frame in (("reference", reference), ("analysis", known))
            for key, column in columns.items()
        }
        chunks = {
            f"{side}_{metric}": _by_chunk(found, metric)
            for side, found in (("estimated", estimated), ("realised", realised))
            for metric in METRICS
        }
        np.savez(Path(sys.argv[1]) / f"{name}.npz", version=nannyml.__version__, seconds=took, **arrays, **chunks)


def _by_chunk(found: Any, metric: str) -> Any:
    return found.filter(period="analysis").to_df()[metric, "value"].to_numpy(dtype=float)


if __name__ == "__main__":
    main()
