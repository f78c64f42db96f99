"""Evaluate: read what the evaluation job measured, choose the candidate that goes before the gate, add up the cost.

The candidate with the best gate metric is the challenger; metrics are reduced to their point estimates here, because
a state's payload is small and the intervals stay in evaluation.json for whoever wants them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steps import clients, names
from steps.errors import EvaluationError
from steps.objects import read_document

if TYPE_CHECKING:
    from mypy_boto3_sagemaker import SageMakerClient


def evaluate(
    document: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]], metric: str, models_uri: str
) -> dict[str, Any]:
    """The challenger with its, the champion's and the baselines' metrics. Raises EvaluationError if none is left."""
    by_job = {entry["job"]: values(entry["metrics"]) for entry in document["challengers"]}
    trained = [c for c in candidates if c["status"] == "trained"]
    measured = [c for c in trained if math.isfinite(by_job.get(c["job"], {}).get(metric, math.nan))]
    if not measured:
        named = ", ".join(c["name"] for c in trained) or "none"
        raise EvaluationError(f"No candidate has a finite {metric} in evaluation.json (trained: {named}).")
    best = max(measured, key=lambda c: by_job[c["job"]][metric])
    champion = document.get("champion")
    champion_metrics = None if champion is None else values(champion["metrics"])
    return {
        "candidate": best["name"],
        "job": best["job"],
        "model_data_url": f"{models_uri}/{best['job']}/output/model.tar.gz",
        "metrics": by_job[best["job"]],
        "champion_metrics": champion_metrics,
        "baselines": {name: values(entry["metrics"]) for name, entry in document["baselines"].items()},
        "challenger": by_job[best["job"]][metric],
        "champion": None if champion_metrics is None else champion_metrics.get(metric),
        "rows": document.get("cases"),
    }


def cost(
    sagemaker: "SageMakerClient", candidates: Sequence[Mapping[str, Any]], asked: Sequence[Mapping[str, Any]]
) -> float | None:
    """What the training jobs that ended well cost, in the policy's currency; None where a price is not declared.

    Billable time is what SageMaker bills, the spot discount included (DescribeTrainingJob: BillableTimeInSeconds).
    """
    prices = {candidate["name"]: candidate.get("price_per_hour") for candidate in asked}
    total = 0.0
    for trained in (c for c in candidates if c["status"] == "trained"):
        price = prices.get(trained["name"])
        if price is None:
            return None
        job = sagemaker.describe_training_job(TrainingJobName=trained["job"])
        total += price * job.get("BillableTimeInSeconds", 0) / 3600
    return round(total, 6)


def values(metrics: Mapping[str, Mapping[str, float | None]]) -> dict[str, float]:
    """Point estimates by name; one that is not a finite number is left out, as JSON has no NaN."""
    points = {name: measured.get("value") for name, measured in metrics.items()}
    return {name: float(value) for name, value in points.items() if value is not None and math.isfinite(value)}


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    bucket, execution = event["bucket"], event["execution"]
    uri = names.within(bucket, execution, "evaluation/evaluation.json")
    document = read_document(clients.s3(), uri)
    if document is None:
        raise EvaluationError(f"The evaluation job left no {uri}.")
    models_uri = str(names.within(bucket, execution, "models"))
    found = evaluate(document.body, event["candidates"], event["metric"], models_uri)
    return found | {"cost": cost(clients.sagemaker(), event["candidates"], event.get("asked", ()))}
