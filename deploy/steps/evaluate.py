"""Evaluate: read what the evaluation job measured, choose the candidate that goes before the gate, add up the cost.

The candidate with the best gate metric is the challenger; metrics are reduced to their point estimates here, and the
comparison with the champion to how sure its gain is, because a state's payload is small. The intervals and the
resampled differences stay in evaluation.json for whoever wants them.

Where the policy says `refit`, it is asked twice: once the accepted challenger was trained again, on the holdout too,
the figures stay those of the model that was measured, and the model is the one to register.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from retrainer.core.gate import compare
from steps import clients, names
from steps.errors import EvaluationError
from steps.objects import read_document

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient


def evaluate(
    document: Mapping[str, Any],
    candidates: Sequence[Mapping[str, Any]],
    metric: str,
    models_uri: str,
    min_gain: float = 0.0,
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
        "comparison": _comparison(document, best["job"], metric, min_gain),
    }


def _comparison(document: Mapping[str, Any], job: str, metric: str, min_gain: float) -> dict[str, Any] | None:
    """None without a champion, and where an image of somebody's own does not resample."""
    (entry,) = (entry for entry in document["challengers"] if entry["job"] == job)
    found = (entry.get("against_champion") or {}).get(metric)
    if document.get("champion") is None or found is None:
        return None
    try:
        low, high, better = (float(found[name]) for name in ("low", "high", "probability_better"))
        return asdict(compare(low, high, better, found["resampled"], min_gain))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise EvaluationError(f"against_champion of {job} in evaluation.json is not as agreed: {error!r}.") from error


def billing(sagemaker: "SageMakerClient", execution: str) -> dict[str, float]:
    """What SageMaker says of all training jobs of the execution: those that failed or were too late are billed too."""
    found = sagemaker.list_training_jobs(NameContains=execution, MaxResults=100)["TrainingJobSummaries"]
    jobs = [sagemaker.describe_training_job(TrainingJobName=job["TrainingJobName"]) for job in found]
    changes = [change for job in jobs for change in job.get("SecondaryStatusTransitions", ())]
    return {
        "seconds": sum(job.get("TrainingTimeInSeconds", 0) for job in jobs),
        "billable_seconds": sum(job.get("BillableTimeInSeconds", 0) for job in jobs),
        "interruptions": sum(change["Status"] == "Interrupted" for change in changes),
    }


def recipe(asked: Sequence[Mapping[str, Any]], candidate: str) -> dict[str, Any] | None:
    """What a candidate was trained with; None where the request does not say it, as old ones do not."""
    found = (a for a in asked if a["name"] == candidate)
    return next(({name: a[name] for name in ("hyperparameters", "instance_type")} for a in found), None)


def quality_uri(s3: "S3Client", bucket: str, execution: str, job: str) -> str:
    """The challenger's report in the registry's form; an image of somebody's own may write evaluation.json alone."""
    own = names.within(bucket, execution, f"evaluation/model_quality/{job}.json")
    return str(own if read_document(s3, own) else names.within(bucket, execution, "evaluation/evaluation.json"))


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
    # An execution that began before the gate looked at the resamplings says no min_gain here.
    found = evaluate(document.body, event["candidates"], event["metric"], models_uri, event.get("min_gain", 0.0))
    sagemaker, trained, asked = clients.sagemaker(), list(event["candidates"]), event.get("asked", ())
    found |= {
        "quality_uri": quality_uri(clients.s3(), bucket, execution, found["job"]),
        "recipe": recipe(asked, found["candidate"]),
        "refit": bool(event["refit"]) if "refit" in event else None,  # null: it was tried, and failed
    }
    if found["refit"]:
        job = event["refit"]
        trained.append({"name": found["candidate"], "status": "trained", "job": job})
        found |= {"job": job, "model_data_url": f"{models_uri}/{job}/output/model.tar.gz"}
    return found | {"cost": cost(sagemaker, trained, asked), "billing": billing(sagemaker, execution)}
