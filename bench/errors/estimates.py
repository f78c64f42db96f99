"""Performance estimated without labels, by us and by NannyML, on the data sets that come with NannyML."""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors.nannyml_side import CHUNK, METRICS, SETS
from bench.telling import table
from retrainer.core.policy import Metric
from retrainer.drift import performance

Arrays = Mapping[str, NDArray[Any]]


def tables(python: Path) -> list[str]:
    """Of each set, metric and chunk the mean absolute error; of the car loan every chunk."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NML_DISABLE_USAGE_LOGGING": "1"}
        script = Path(__file__).with_name("nannyml_side.py")
        subprocess.run([str(python), str(script), folder], env=environment, check=True)
        sets = {name: dict(np.load(Path(folder) / f"{name}.npz")) for name, *_ in SETS}
    rows, chunks = [], []
    for name, arrays in sets.items():
        began = time.process_time()
        ours = _estimated(arrays)
        took = time.process_time() - began
        for metric in METRICS:
            realised, theirs = arrays[f"realised_{metric}"], arrays[f"estimated_{metric}"]
            errors = [float(np.mean(np.abs(estimate - realised))) for estimate in (ours[metric], theirs)]
            agreed = float(np.max(np.abs(_realised(arrays)[metric] - realised)))
            row = [name, metric, f"{len(realised)}", *(f"{error:.5f}" for error in errors)]
            rows.append([*row, f"{agreed:.0e}", f"{took:.2f}", f"{arrays['seconds']:.2f}"])
        if name == SETS[0][0]:
            of = [(arrays[f"realised_{metric}"], ours[metric], arrays[f"estimated_{metric}"]) for metric in METRICS]
            shown = [column for columns in of for column in columns]
            chunks = [[f"{k + 1}", *(f"{x[k]:.4f}" for x in shown)] for k in range(len(shown[0]))]
    head = [
        "data",
        "metric",
        "chunks",
        "ours",
        "NannyML",
        "realised apart by",
        "CPU s, ours",
        "NannyML, fit and estimate",
    ]
    each = ["chunk", *(f"{metric}, {who}" for metric in ("AUC", "accuracy") for who in ("realised", "ours", "NannyML"))]
    version = next(iter(sets.values()))["version"]
    return [
        f"**Estimated without labels** (mean absolute error over chunks of {CHUNK:,} rows; NannyML {version})",
        table(head, rows),
        f"The {SETS[0][0]} data, chunk by chunk:",
        table(each, chunks),
    ]


def _slices(arrays: Arrays) -> list[slice]:
    """NannyML's last chunk takes in what is left over."""
    count, rows = len(arrays["realised_roc_auc"]), len(arrays["analysis_y_true"])
    return [slice(CHUNK * k, CHUNK * (k + 1) if k < count - 1 else rows) for k in range(count)]


def _estimated(arrays: Arrays) -> dict[str, NDArray[np.float64]]:
    """Of each chunk by itself, put right by the labels of the reference alone."""
    chance = performance.calibrated(
        arrays["analysis_y_pred_proba"], arrays["reference_y_pred_proba"], arrays["reference_y_true"] == 1
    )
    right = np.where(arrays["analysis_y_pred"] == 1, chance, 1 - chance)
    chunks = _slices(arrays)
    areas = [performance.expected_auc(arrays["analysis_y_pred_proba"][chunk], chance[chunk]) for chunk in chunks]
    return {"roc_auc": np.array(areas, float), "accuracy": np.array([np.mean(right[chunk]) for chunk in chunks])}


def _realised(arrays: Arrays) -> dict[str, NDArray[np.float64]]:
    def of(metric: Metric, prediction: str, chunk: slice) -> float:
        made, known = (arrays[f"analysis_{name}"][chunk].tolist() for name in (prediction, "y_true"))
        keys = [str(k) for k in range(len(made))]
        found = performance.performance(metric, keys, made, keys, known)
        assert found
        return found.value

    chunks = _slices(arrays)
    return {
        "roc_auc": np.array([of("roc_auc", "y_pred_proba", chunk) for chunk in chunks]),
        "accuracy": np.array([of("accuracy", "y_pred", chunk) for chunk in chunks]),
    }
