"""What to write in a field, by example, where pydantic's own words do not say it."""

from collections.abc import Sequence
from typing import Final

_WRITE: Final = {
    "model": "lower-case letters, digits and -, at most 24, as in model: recommender",
    "bucket": "the bucket that batches arrive in, or leave it out where the daemon's settings name one",
    "data.prefix": "a key prefix that ends in /, as in data/recommender/",
    "predictions.prefix": "a key prefix that ends in /, as in predictions/recommender/",
    "timestamp": "the name of the column that holds the time of each row",
    "name": "lower-case letters, digits and -, as in name: nightly",
    "candidates.name": "lower-case letters, digits and -, at most 12, as in name: boosted",
    "metric": "the metric's name, as in ndcg_at_10",
    "predictions.metric": "metric: accuracy, roc_auc, hit_rate_at_10, mae or rmse",
    "predictions.key": "key: and the column that predictions and data share",
    "predictions.prediction": "prediction: and the column of the predicted value",
    "predictions.label": "label: and the column of the data that holds what really happened",
    "test": "the test by its name, as in test: wasserstein",
    "kind": "kind: numerical, categorical, embedding or image",
    "threshold": "the distance (or p-value) from which the column has drifted, as in 0.1",
    "cron": "five fields in quotes, as in cron: '0 2 * * *'",
    "share": "the share of drifted columns, as in share: 0.5",
    "drop": "by how much worse, as a share, as in drop: 0.15",
    "clear": "a share, as in clear: 0.3",
    "false_alarms_per_year": "0.05, say, or null to let the tests' own thresholds decide",
    "classifier": "an AUC between 0.5 and 1, as in classifier: 0.7",
    "margin": "by how much worse, as a share, as in margin: 0.1",
    "false_alarms": "a chance, as in false_alarms: 0.01",
    "bytes_min": "a number of bytes, as in bytes_min: 10000000000",
    "scale_out.state_machine": "the ARN of the state machine that counts profiles, arn:aws:states:REGION:ACCOUNT:"
    "stateMachine:NAME, or leave it out where the settings name one",
    "price": "what a retraining may cost in errors, as in price: 500",
    "rows": "a number of rows, as in rows: 10000",
    "rows_min": "a number of rows, as in rows_min: 200",
    "labels_min": "a number of labels, as in labels_min: 200",
    "at_least": "at how many of the measurements, as in at_least: 2",
    "windows.training_batches": "a number of batches, as in training_batches: 1000",
    "when.windows": "how many measurements are looked back on, as in windows: 3",
    "when.all": "the names of triggers, as in all: [drift, volume]",
    "when.any": "the names of triggers, as in any: [drift, volume]",
    "quiet_hours.from": "from: '22:00'",
    "quiet_hours.to": "to: '06:00'",
    "freezes.from": "from: and a day, as in 2026-12-20",
    "freezes.to": "to: and the last day, as in 2027-01-02",
    "why": "why: and a few words, which are told to whoever asks",
    "period": "period: and how long, as in period: 1w",
    "executions": "a number of executions, as in executions: 4",
    "money": "an amount in the currency of costs, as in money: 50",
    "concurrency": "a number of models, as in concurrency: 2",
    "execution": "an amount in the currency of costs, as in execution: 3.5",
    "error": "what one wrong prediction costs, as in error: 0.02",
    "currency": "three letters of ISO 4217, as in currency: EUR",
    "price_per_hour": "an amount in the currency of costs, as in price_per_hour: 0.9",
    "canary_percent": "1 to 50, as in canary_percent: 10",
    "holdout_share": "a share below one half, as in holdout_share: 0.1",
    "family": "lightgbm, hist_gradient_boosting, logistic_regression, tabular, ease, or your module:callable",
    "state_machine": "arn:aws:states:REGION:ACCOUNT:stateMachine:NAME, or leave it out where the settings name one",
    "candidates": "at least one, as in candidates: [{name: sasrec}]",
    "instance_type": "an instance type, as in ml.g4dn.xlarge",
    "processing_instance_type": "an instance type, as in ml.m5.large",
    "serving_instance_type": "an instance type, as in ml.m5.large",
    "after": "names of other models, as in after: [prices]",
    "backoff.after": "a number of retrainings, as in after: 2",
    "data": "the section data: with at least prefix: and timestamp:",
    "action": "the section action: with at least candidates:",
    "gate": "the section gate: with at least metric:",
}
"""By the name of the field, or of its section and it."""


def write_for(where: Sequence[int | str]) -> str:
    """What to write there; empty where it is not told here."""
    names = [str(part) for part in where if isinstance(part, str)]
    if not names:
        return ""
    around = "when" if "when" in names[:-1] else names[-2] if len(names) > 1 else ""
    return _WRITE.get(f"{around}.{names[-1]}") or _WRITE.get(names[-1], "")
