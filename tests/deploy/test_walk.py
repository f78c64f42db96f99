"""The whole state machine, deployed from the template onto the embedded AWS, walked to each of its ends.

The trainer image is a stand-in; everything else is what is deployed: definition, Lambda code, queue, topic, bucket.
"""

import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import package
from retrainer.core.execution import Billing
from retrainer.local.aws import LocalAws
from retrainer.local.provision import provision
from tests.deploy import fake_image
from tests.deploy.aws_clients import client
from tests.deploy.batches import batch, parquet, put, request
from tests.deploy.definition import TEMPLATE, source

FOREIGN = {"uri": "s3://elsewhere/x.json", "sha256": "0" * 64}
SPOT = {"spot": True, "instance_type": "ml.m5.large"}


@dataclass(frozen=True)
class Stack:
    outputs: dict[str, str]

    def run(self, model: str, generation: int, *scores: str, **changes: Any) -> dict[str, Any]:
        """An execution to its end, with a candidate a score."""
        return self.end(self.start(model, generation, *scores, **changes))

    def start(self, model: str, generation: int, *scores: str, **changes: Any) -> str:
        bucket = self.outputs["BucketName"]
        candidates = [{"name": f"c{n}", **SPOT, "hyperparameters": hyper(s)} for n, s in enumerate(scores)]
        objects = put(bucket, model, [parquet(batch(0, 100))])
        execution, given = request(bucket, model, objects, generation, **{"candidates": candidates, **changes})
        started = client("stepfunctions").start_execution(
            stateMachineArn=self.outputs["StateMachineArn"], name=execution, input=json.dumps(given)
        )
        return str(started["executionArn"])

    def end(self, arn: str) -> dict[str, Any]:
        deadline = time.monotonic() + 90
        while (found := client("stepfunctions").describe_execution(executionArn=arn))["status"] == "RUNNING":
            assert time.monotonic() < deadline, client("stepfunctions").get_execution_history(executionArn=arn)
            time.sleep(0.1)
        return dict(found)

    def champion(self, model: str) -> dict[str, Any]:
        body = client("s3").get_object(Bucket=self.outputs["BucketName"], Key=f"champions/{model}.json")["Body"]
        return dict(json.loads(body.read()))


def hyper(score: str) -> dict[str, str]:
    """`fail` never trains, `broken` trains well and never serves, `slow` takes a second; anything else is the score."""
    return {
        "fail": {"fail": "AlgorithmError: the loss is NaN"},
        "broken": {"score": "0.9", "serves": "no"},
        "slow": {"score": "0.2", "seconds": "1"},
    }.get(score, {"score": score})


def billed(execution: str) -> dict[str, float]:
    """What SageMaker says of the execution's training jobs."""
    sagemaker = client("sagemaker")
    found = sagemaker.list_training_jobs(NameContains=execution)["TrainingJobSummaries"]
    jobs = [sagemaker.describe_training_job(TrainingJobName=job["TrainingJobName"]) for job in found]
    return {
        "seconds": sum(job["TrainingTimeInSeconds"] for job in jobs),
        "billable_seconds": sum(job["BillableTimeInSeconds"] for job in jobs),
        "interruptions": sum(c["Status"] == "Interrupted" for job in jobs for c in job["SecondaryStatusTransitions"]),
    }


@pytest.fixture(scope="module")
def stack(aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    built = package.assemble(tmp_path_factory.mktemp("build"))
    parameters = {"BucketName": "walked", "TrainerImage": fake_image.IMAGE}
    code = {source()["Globals"]["Function"]["CodeUri"]: [built / "steps", built / "retrainer"]}
    return Stack(provision(aws.endpoint_url, TEMPLATE, parameters, stack="walk", code=code))


def test_the_better_of_two_candidates_is_promoted(stack: Stack, model: str) -> None:
    ended = stack.run(model, 1, "0.1", "0.2")
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    output = json.loads(ended["output"])
    arn = output.pop("model_package_arn")
    assert output == {
        "outcome": "promoted",
        "reason": "ndcg_at_10 0.2000 and beats popularity; there is no champion yet.",
        "decision_id": f"{model}-17",
        "model": model,
        "generation": 1,
        "metric": "ndcg_at_10",
        "challenger": 0.2,
        "champion": None,
        "gain": None,
        "candidate": "c1",
        "metrics": {"ndcg_at_10": 0.2},
        "rows": 1,
        "comparison": None,
        "cost": None,
        "billing": billed(ended["name"]),
        "refit": None,
    }
    sagemaker = client("sagemaker")
    assert sagemaker.describe_model_package(ModelPackageName=arn)["ModelApprovalStatus"] == "Approved"
    endpoint = sagemaker.describe_endpoint(EndpointName=model)
    assert endpoint["EndpointConfigName"] == ended["name"] == stack.champion(model)["execution"]
    assert stack.champion(model)["model_package_arn"] == arn


def test_what_the_training_jobs_cost_is_in_the_outcome(stack: Stack, model: str) -> None:
    priced = [{"name": "c0", **SPOT, "price_per_hour": 3.6, "hyperparameters": hyper("0.2")}]
    ended = stack.run(model, 1, candidates=priced)
    job = client("sagemaker").describe_training_job(TrainingJobName=f"{ended['name']}-c0-0")
    assert json.loads(ended["output"])["cost"] == pytest.approx(0.001 * job["BillableTimeInSeconds"])


def test_an_accepted_model_is_trained_once_more_on_the_holdout_too_and_that_one_serves(
    stack: Stack, model: str
) -> None:
    priced = {"name": "c0", **SPOT, "price_per_hour": 3.6, "hyperparameters": hyper("0.2")}
    ended = stack.run(model, 1, refit=True, candidates=[priced])
    output, job = json.loads(ended["output"]), f"{ended['name']}-refit-0"
    assert (output["outcome"], output["refit"]) == ("promoted", True)
    sagemaker = client("sagemaker")
    training = sagemaker.describe_training_job(TrainingJobName=job)
    assert [channel["ChannelName"] for channel in training["InputDataConfig"]] == ["train", "holdout", "champion"]
    place = training["ModelArtifacts"]["S3ModelArtifacts"]
    assert stack.champion(model)["model_data_url"] == place
    assert sagemaker.describe_model(ModelName=ended["name"])["PrimaryContainer"]["ModelDataUrl"] == place
    package = sagemaker.describe_model_package(ModelPackageName=output["model_package_arn"])
    told = package["CustomerMetadataProperties"]
    assert (told["training_job"], told["refit"], told["candidate"]) == (job, "true", "c0")
    report = package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    assert report.endswith(f"/model_quality/{ended['name']}-c0-0.json")
    assert output["billing"] == billed(ended["name"])
    assert output["cost"] == pytest.approx(0.001 * output["billing"]["billable_seconds"])


def test_a_model_that_cannot_be_trained_once_more_goes_on_as_it_was_measured(stack: Stack, model: str) -> None:
    fragile = {"name": "c0", **SPOT, "hyperparameters": hyper("0.2") | {"refit": "AlgorithmError: the loss is NaN"}}
    ended = stack.run(model, 1, refit=True, candidates=[fragile])
    output, job = json.loads(ended["output"]), f"{ended['name']}-c0-0"
    assert (output["outcome"], output["refit"]) == ("promoted", False)
    sagemaker = client("sagemaker")
    refit = sagemaker.describe_training_job(TrainingJobName=f"{ended['name']}-refit-0")
    assert refit["TrainingJobStatus"] == "Failed"
    package = sagemaker.describe_model_package(ModelPackageName=output["model_package_arn"])
    told = package["CustomerMetadataProperties"]
    assert (told["training_job"], told["refit"]) == (job, "false")
    assert stack.champion(model)["model_data_url"].endswith(f"/models/{job}/output/model.tar.gz")
    assert output["billing"] == billed(ended["name"])


def test_a_refused_model_is_not_trained_once_more(stack: Stack, model: str) -> None:
    assert stack.run(model, 1, "0.2")["status"] == "SUCCEEDED"
    ended = stack.run(model, 2, "0.1", refit=True)
    output = json.loads(ended["output"])
    assert (output["outcome"], output["refit"]) == ("refused", None)
    jobs = client("sagemaker").list_training_jobs(NameContains=ended["name"])["TrainingJobSummaries"]
    assert [job["TrainingJobName"] for job in jobs] == [f"{ended['name']}-c0-0"]


def test_a_worse_model_is_refused_and_a_better_one_replaces_the_champion(stack: Stack, model: str) -> None:
    assert stack.run(model, 1, "0.2")["status"] == "SUCCEEDED"
    worse = json.loads(stack.run(model, 2, "0.1")["output"])
    assert (worse["outcome"], worse["champion"], worse["model_package_arn"]) == ("refused", 0.2, None)
    assert worse["gain"] == pytest.approx(-0.1)
    better = json.loads(stack.run(model, 3, "0.3")["output"])
    assert (better["outcome"], better["champion"]) == ("promoted", 0.2)
    assert stack.champion(model)["generation"] == 3
    sure = {"low": 0.05, "high": 0.15, "better": 1.0, "enough": 1.0, "resamplings": 1000}
    assert better["comparison"] == pytest.approx(sure)
    assert "a gain of +0.1000 (95 % interval +0.0500 to +0.1500, better in 100 % of 1,000" in better["reason"]
    package = client("sagemaker").describe_model_package(ModelPackageName=better["model_package_arn"])
    report = package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]
    assert report.endswith(f"/evaluation/model_quality/{package['CustomerMetadataProperties']['training_job']}.json")


def test_a_gain_that_is_not_sure_enough_is_refused(stack: Stack, model: str) -> None:
    assert stack.run(model, 1, "0.2")["status"] == "SUCCEEDED"
    rule = {"metric": "ndcg_at_10", "min_gain": 0.1, "baselines": [], "confidence": 0.95}
    output = json.loads(stack.run(model, 2, "0.3", gate=rule)["output"])
    assert output["outcome"] == "refused"
    assert output["comparison"]["enough"] == 0.5
    assert output["reason"].endswith("misses the least gain of 0.1000 in 95 %: it is exceeded in 50 % of them.")


def test_a_failing_candidate_does_not_end_the_others(stack: Stack, model: str) -> None:
    output = json.loads(stack.run(model, 1, "fail", "0.2")["output"])
    assert (output["outcome"], output["candidate"]) == ("promoted", "c1")


def test_what_spot_cannot_finish_in_time_is_trained_on_demand(aws: LocalAws, stack: Stack, model: str) -> None:
    fault = {"spot_interrupt": {"job": f"{model}-", "times": 10_000}}
    with urllib.request.urlopen(f"{aws.endpoint_url}/_retrainer/faults", json.dumps(fault).encode()):  # noqa: S310
        ended = stack.run(model, 1, "slow", timeouts={"training_seconds": 8, "wait_seconds": 8})
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    sagemaker = client("sagemaker")
    spot = sagemaker.describe_training_job(TrainingJobName=f"{ended['name']}-c0-0")
    on_demand = sagemaker.describe_training_job(TrainingJobName=f"{ended['name']}-c0-od-0")
    assert (spot["TrainingJobStatus"], spot["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
    assert on_demand["TrainingJobStatus"] == "Completed"
    assert on_demand["CheckpointConfig"] == spot["CheckpointConfig"]
    billing = json.loads(ended["output"])["billing"]
    assert billing == billed(ended["name"])
    assert billing["interruptions"] > 0
    assert billing["billable_seconds"] < billing["seconds"]


def test_code_that_fails_on_spot_is_not_paid_for_again_at_the_full_price(stack: Stack, model: str) -> None:
    ended = stack.run(model, 1, "fail")
    jobs = client("sagemaker").list_training_jobs(NameContains=ended["name"])["TrainingJobSummaries"]
    assert [job["TrainingJobName"] for job in jobs] == [f"{ended['name']}-c0-0"]


def test_if_every_candidate_fails_the_execution_says_why(stack: Stack, model: str) -> None:
    ended = stack.run(model, 1, "fail")
    assert (ended["status"], ended["error"]) == ("FAILED", "TrainingError")
    assert ended["cause"].startswith("No candidate was trained. c0: ")
    assert "the loss is NaN" in ended["cause"]
    billing = Billing.of_failed(ended["cause"])
    assert billing is not None
    assert asdict(billing) == billed(ended["name"])


def test_bad_data_ends_the_execution_with_one_sentence_before_anything_is_trained(stack: Stack, model: str) -> None:
    ended = stack.run(model, 1, "0.2", manifest=FOREIGN)
    assert (ended["status"], ended["error"]) == ("FAILED", "ManifestError")
    assert ended["cause"].startswith("The manifest s3://elsewhere/x.json is not at s3://walked/executions/")
    assert Billing.of_failed(ended["cause"]) is None


def test_a_model_that_does_not_come_up_fails_and_the_champion_stays(stack: Stack, model: str) -> None:
    assert stack.run(model, 1, "0.2")["status"] == "SUCCEEDED"
    before = stack.champion(model)
    ended = stack.run(model, 2, "broken")
    assert (ended["status"], ended["error"]) == ("FAILED", "RolledBack"), ended
    assert stack.champion(model) == before


@pytest.mark.parametrize(("approved", "outcome"), [(True, "promoted"), (False, "rejected")])
def test_a_person_is_asked_through_the_daemons_queue(stack: Stack, model: str, approved: bool, outcome: str) -> None:
    arn = stack.start(model, 1, "0.2", approval="manual")
    asked = _asked(stack, arn)
    assert asked["source"] == "retrainer"
    assert asked["detail-type"] == "Approval Requested"
    assert asked["resources"] == [arn]
    assert asked["detail"]["challenger"] == 0.2
    answer = {"approved": approved, "by": "ann"}
    client("stepfunctions").send_task_success(taskToken=asked["detail"]["task_token"], output=json.dumps(answer))
    output = json.loads(stack.end(arn)["output"])
    assert output["outcome"] == outcome
    assert (output["reason"] == "Rejected by ann.") != approved
    package_arn = output["model_package_arn"]
    status = client("sagemaker").describe_model_package(ModelPackageName=package_arn)["ModelApprovalStatus"]
    assert status == ("Approved" if approved else "Rejected")


def test_an_unclear_answer_promotes_nothing(stack: Stack, model: str) -> None:
    arn = stack.start(model, 1, "0.2", approval="manual")
    token = _asked(stack, arn)["detail"]["task_token"]
    client("stepfunctions").send_task_success(taskToken=token, output='{"approved": "yes"}')
    ended = stack.end(arn)
    assert (ended["status"], ended["error"]) == ("FAILED", "ApprovalError")


def test_an_older_execution_that_is_answered_late_is_superseded(stack: Stack, model: str) -> None:
    late = stack.start(model, 1, "0.9", approval="manual")
    token = _asked(stack, late)["detail"]["task_token"]
    assert json.loads(stack.run(model, 2, "0.2")["output"])["outcome"] == "promoted"
    client("stepfunctions").send_task_success(taskToken=token, output='{"approved": true, "by": "ann"}')
    output = json.loads(stack.end(late)["output"])
    assert output["outcome"] == "superseded"
    assert output["reason"] == "Generation 2 took the fence before generation 1."
    assert stack.champion(model)["generation"] == 2


def test_the_queue_hears_of_data_executions_and_training_jobs(stack: Stack, model: str) -> None:
    ended = stack.run(model, 1, "0.2")
    wanted = {
        ("Object Created", f"data/{model}/0.parquet"),
        ("Step Functions Execution Status Change", ended["executionArn"]),
        ("SageMaker Training Job State Change", f"{ended['name']}-c0-0"),
    }
    for body in _messages(stack):
        detail = body["detail"]
        named = (detail.get("object", {}).get("key"), detail.get("executionArn"), detail.get("TrainingJobName"))
        wanted -= {(body["detail-type"], name) for name in named}
        if not wanted:
            break


def test_large_data_is_preprocessed_in_a_job(stack: Stack, model: str) -> None:
    bucket, rows = stack.outputs["BucketName"], 1_000_001
    table = pa.table({"user_id": np.arange(rows), "item_id": np.arange(rows), "timestamp": _seconds(rows)})
    objects = put(bucket, model, [parquet(table)])
    execution, given = request(bucket, model, objects, 1)
    arn = client("stepfunctions").start_execution(
        stateMachineArn=stack.outputs["StateMachineArn"], name=execution, input=json.dumps(given)
    )["executionArn"]
    ended = stack.end(arn)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    job = client("sagemaker").describe_processing_job(ProcessingJobName=f"{execution}-preprocess-0")
    assert job["ProcessingJobStatus"] == "Completed"


def _seconds(rows: int) -> pa.Array:
    return pa.array(np.arange(rows) * 1_000_000, pa.timestamp("us", tz="UTC"))


def _asked(stack: Stack, execution: str) -> dict[str, Any]:
    """The approval request of this execution, from the queue."""
    return next(m for m in _messages(stack) if m.get("resources") == [execution] and m["source"] == "retrainer")


def _messages(stack: Stack) -> Iterator[dict[str, Any]]:
    """What comes out of the events queue, each once; fails when what is waited for does not come in a minute."""
    sqs, url, deadline = client("sqs"), stack.outputs["QueueUrl"], time.monotonic() + 60
    while time.monotonic() < deadline:
        got = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1, MaxNumberOfMessages=10)
        for message in got.get("Messages", []):
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            yield json.loads(message["Body"])
    raise AssertionError("the queue did not hear of it")
