"""What the training job prints: one line per unit of work, and the regexes by which SageMaker reads metrics off it."""

from __future__ import annotations

import sys

# AlgorithmSpecification.MetricDefinitions of the training job; SageMaker searches every line of the log with each.
_NUMBER = r"([0-9.eE+-]+);"
METRIC_DEFINITIONS = (
    {"Name": "ndcg_at_10", "Regex": rf"\bndcg_at_10={_NUMBER}"},
    {"Name": "hit_rate_at_10", "Regex": rf"\bhit_rate_at_10={_NUMBER}"},
    {"Name": "train_loss", "Regex": rf"\btrain_loss={_NUMBER}"},
    {"Name": "epoch", "Regex": r"\bepoch=([0-9]+);"},
)


def say(event: str, **values: object) -> None:
    """``event key=value; key=value;`` on stdout, at once: a container's log is read while it runs."""
    fields = "".join(
        f" {name}={value:.6g};" if isinstance(value, float) else f" {name}={value};" for name, value in values.items()
    )
    sys.stdout.write(f"{event}{fields}\n")
    sys.stdout.flush()
