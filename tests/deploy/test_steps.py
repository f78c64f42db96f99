"""Evaluate, gate, register and notify: small steps, each with what it must not get wrong."""

import json
import math
from typing import Any

import boto3
import pytest

from retrainer.local.aws import LocalAws
from steps import clients, evaluate, gate, notify, register
from steps.errors import EvaluationError
from tests.deploy.aws_clients import client
from tests.deploy.payloads import EXECUTION, INPUT, STATE

TRAINED = [{"name": n, "status": "trained", "job": f"x-{n}-0"} for n in ("a", "b")]


def measured(**scores: float | None) -> dict[str, Any]:
    return {
        "challengers": [{"job": f"x-{n}-0", "metrics": {"ndcg": {"value": v}}} for n, v in scores.items()],
        "champion": {"metrics": {"ndcg": {"value": 0.1}}},
        "baselines": {"popularity": {"metrics": {"ndcg": {"value": 0.05}}}},
    }


def test_the_best_candidate_is_the_challenger() -> None:
    found = evaluate.evaluate(measured(a=0.1, b=0.2), TRAINED, "ndcg", "s3://bucket/executions/x/models")
    assert (found["candidate"], found["challenger"], found["champion"]) == ("b", 0.2, 0.1)
    assert found["model_data_url"] == "s3://bucket/executions/x/models/x-b-0/output/model.tar.gz"
    assert found["baselines"] == {"popularity": {"ndcg": 0.05}}


def test_a_candidate_without_a_finite_metric_is_passed_over() -> None:
    assert evaluate.evaluate(measured(a=0.1, b=math.nan), TRAINED, "ndcg", "m")["candidate"] == "a"


def test_a_model_of_a_job_that_did_not_end_well_is_passed_over() -> None:
    candidates: list[dict[str, Any]] = [TRAINED[0], {"name": "b", "status": "failed", "error": {}}]
    assert evaluate.evaluate(measured(a=0.1, b=0.9), candidates, "ndcg", "m")["candidate"] == "a"


def test_no_candidate_left_is_an_error_that_names_them() -> None:
    with pytest.raises(EvaluationError, match=r"No candidate has a finite ndcg .*\(trained: a, b\)"):
        evaluate.evaluate(measured(a=None), TRAINED, "ndcg", "m")


def against(**found: Any) -> dict[str, Any]:
    """An evaluation of one challenger whose gain was resampled, or something else in place of that."""
    told = {
        "difference": 0.02,
        "low": 0.0,
        "high": 0.04,
        "probability_better": 0.75,
        "resampled": [0, 0.01, 0.02, 0.04],
    }
    document = measured(a=0.12)
    document["challengers"][0]["against_champion"] = {"ndcg": told | found}
    return document


def test_how_sure_the_gain_is_goes_with_it_in_five_numbers() -> None:
    found = evaluate.evaluate(against(), TRAINED, "ndcg", "m", min_gain=0.02)
    assert found["comparison"] == {"low": 0.0, "high": 0.04, "better": 0.75, "enough": 0.375, "resamplings": 4}


def test_an_evaluation_of_before_says_nothing_of_how_sure_it_is() -> None:
    assert evaluate.evaluate(measured(a=0.2), TRAINED, "ndcg", "m")["comparison"] is None
    without = against() | {"champion": None}
    assert evaluate.evaluate(without, TRAINED, "ndcg", "m")["comparison"] is None


@pytest.mark.parametrize("lie", [{"low": None}, {"resampled": []}, {"resampled": ["x"]}, {"resampled": 7}])
def test_a_comparison_that_is_not_as_agreed_is_named(lie: dict[str, Any]) -> None:
    with pytest.raises(EvaluationError, match=r"against_champion of x-a-0 in evaluation\.json is not as agreed"):
        evaluate.evaluate(against(**lie), TRAINED, "ndcg", "m")


def test_what_the_chosen_candidate_was_trained_with_is_told_where_it_is_known() -> None:
    told = {"hyperparameters": {"epochs": "8"}, "instance_type": "ml.m5.large"}
    assert evaluate.recipe([{"name": "a", "spot": True, **told}], "a") == told
    assert evaluate.recipe([], "a") is None


def test_an_image_without_reports_of_its_own_registers_its_evaluation(bucket: str) -> None:
    place = f"executions/{EXECUTION}/evaluation"
    s3 = client("s3")
    assert evaluate.quality_uri(s3, bucket, EXECUTION, "x-a-0") == f"s3://{bucket}/{place}/evaluation.json"
    s3.put_object(Bucket=bucket, Key=f"{place}/model_quality/x-a-0.json", Body=b'{"ranking_metrics": {}}')
    own = f"s3://{bucket}/{place}/model_quality/x-a-0.json"
    assert evaluate.quality_uri(s3, bucket, EXECUTION, "x-a-0") == own
    old = STATE | {"evaluation": {k: v for k, v in STATE["evaluation"].items() if k != "quality_uri"}}
    for state, told in ((old, "evaluation/evaluation.json"), (STATE, "-sasrec-0.json")):
        asked = {"request": state, "evaluation": state["evaluation"], "execution": EXECUTION}
        source = register.package(asked, "image")["ModelMetrics"]["ModelQuality"]["Statistics"]
        assert source["S3Uri"].endswith(told)


def test_an_evaluation_that_left_no_file_is_named(bucket: str) -> None:
    asked = {"bucket": bucket, "execution": EXECUTION, "candidates": TRAINED, "metric": "ndcg"}
    with pytest.raises(EvaluationError, match=rf"left no s3://{bucket}/executions/{EXECUTION}/evaluation/"):
        evaluate.handler(asked, None)


def test_the_gate_speaks_as_the_core_does() -> None:
    verdict = gate.handler({"evaluation": STATE["evaluation"], "rule": INPUT["gate"]}, None)
    assert verdict == {
        "accepted": True,
        "reason": "ndcg_at_10 0.1200 and beats popularity; there is no champion yet.",
        "gain": None,
    }


def test_the_gate_hears_of_the_confidence_and_of_how_sure_the_gain_is() -> None:
    found = evaluate.evaluate(against(), TRAINED, "ndcg", "m", min_gain=0.01)
    rule = {"metric": "ndcg", "min_gain": 0.01, "baselines": [], "confidence": 0.8}
    verdict = gate.handler({"evaluation": found, "rule": rule}, None)
    assert not verdict["accepted"]
    assert verdict["reason"].endswith("misses the least gain of 0.0100 in 80 %: it is exceeded in 62.5 % of them.")


def test_a_package_is_registered_once_however_often_it_is_asked_for(aws: LocalAws, model: str) -> None:
    sagemaker = client("sagemaker")
    event = {
        "request": INPUT | {"model": model},
        "evaluation": STATE["evaluation"],
        "execution": f"{model}-g3-0a1b2c3d",
    }
    wanted = register.package(event, "image:1")
    first = register.register(sagemaker, wanted)
    assert register.register(sagemaker, wanted) == first
    found = sagemaker.describe_model_package(ModelPackageName=first)
    assert found["ModelApprovalStatus"] == "PendingManualApproval"
    assert found["CustomerMetadataProperties"]["decision_id"] == "recommender-17"
    later = register.package(event | {"execution": f"{model}-g4-0a1b2c3d"}, "image:1")
    assert register.register(sagemaker, later) != first


@pytest.mark.parametrize(
    ("caught", "error", "cause"),
    [
        (
            {"Error": "DataError", "Cause": json.dumps({"errorType": "DataError", "errorMessage": "x lacks y."})},
            "DataError",
            "x lacks y.",
        ),
        (
            {"Error": "States.TaskFailed", "Cause": json.dumps({"FailureReason": "AlgorithmError: exit code 1"})},
            "States.TaskFailed",
            "AlgorithmError: exit code 1",
        ),
        ({"Error": "States.Timeout"}, "States.Timeout", "States.Timeout, without a further word."),
        ({"Error": "RolledBack", "Cause": "The endpoint is back."}, "RolledBack", "The endpoint is back."),
        ({"Error": "X", "Cause": "[1]"}, "X", "[1]"),
        ({"Error": "X", "Cause": "y" * 40_000}, "X", "y" * notify.CAUSE_MAX),
    ],
)
def test_whatever_was_caught_is_told_in_one_sentence(caught: dict[str, str], error: str, cause: str) -> None:
    assert notify.explain(caught) == {"error": error, "cause": cause}


def test_a_failure_of_all_candidates_tells_of_each() -> None:
    candidates = [{"name": n, "error": {"Error": "E", "Cause": f"{n} broke."}} for n in ("a", "b")]
    told = notify.failure({"caught": {"Error": "TrainingError", "candidates": candidates}})
    assert told == {"error": "TrainingError", "cause": "No candidate was trained. a: a broke.; b: b broke."}


def test_a_failure_is_told_of_though_sagemaker_does_not_say_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "sagemaker", lambda: boto3.client("sagemaker", endpoint_url="http://127.0.0.1:9"))
    monkeypatch.setenv("TOPIC_ARN", "arn:aws:sns:us-east-1:123456789012:nobody-is-told")
    event = {"caught": {"Error": "E", "Cause": "It broke."}, "execution": "x-g1-0", "input": {"notify": []}}
    assert notify.handler(event, None) == {"error": "E", "cause": "It broke."}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"notify": ["failed"]}, {"failed"}),
        ({"notify": []}, set()),
        ({}, {"failed", "promoted"}),
        ("not an object", {"failed", "promoted"}),
    ],
)
def test_only_the_ends_that_the_policy_names_are_told(given: object, wanted: set[str]) -> None:
    assert {end for end in ("failed", "promoted") if notify.is_wanted({"input": given}, end)} == wanted


def test_a_cost_without_a_declared_price_is_not_made_up() -> None:
    assert evaluate.cost(client("sagemaker"), TRAINED, [{"name": "b", "price_per_hour": 1.0}]) is None


def test_the_topic_hears_of_it(aws: LocalAws, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sns, sqs = client("sns"), client("sqs")
    queue = sqs.create_queue(QueueName=bucket)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topic = sns.create_topic(Name=bucket)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    monkeypatch.setenv("TOPIC_ARN", topic)
    notify.handler({"outcome": {"outcome": "promoted", "reason": "better"}, "execution": "x-g1-0"}, None)
    (message,) = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
    told = json.loads(message["Body"])
    assert told["Subject"] == "x-g1-0 promoted"
    assert json.loads(told["Message"])["reason"] == "better"
