"""What the training job prints: one line per unit of work, and the regexes by which SageMaker reads metrics off it."""

from __future__ import annotations

import os
import sys

# AlgorithmSpecification.MetricDefinitions of the training job; SageMaker searches every line of the log with each.
_NUMBER = r"([0-9.eE+-]+);"
METRICS = "ndcg_at_10 hit_rate_at_10 accuracy balanced_accuracy log_likelihood roc_auc train_loss epoch"
METRIC_DEFINITIONS = tuple({"Name": name, "Regex": rf"\b{name}={_NUMBER}"} for name in METRICS.split())


def is_first_process() -> bool:
    """Of those that torchrun started, or the only one: it alone speaks, and writes what the job leaves behind."""
    return os.environ.get("RANK", "0") == "0"


def say(event: str, **values: object) -> None:
    """``event key=value; key=value;`` on stdout, at once: a container's log is read while it runs."""
    if not is_first_process():
        return
    fields = "".join(
        f" {name}={value:.6g};" if isinstance(value, float) else f" {name}={value};" for name, value in values.items()
    )
    sys.stdout.write(f"{event}{fields}\n")
    sys.stdout.flush()
