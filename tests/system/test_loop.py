"""An object in S3 leads, by itself, to a model that serves; and every way in which it does not has its reason."""

import io
import json
import re
import tarfile
from typing import Any

import httpx
import pytest

from tests.system import data
from tests.system.house import House, policy
from tests.system.until import until

pytestmark = pytest.mark.system

FEW = 4
"""Steps of a batch that is too small for the volume trigger, twice over."""
_VOLUME = {"volume": {"rows": 1000}}
_PREDICTIONS = {"key": "request_id", "prediction": "items", "label": "item_id", "metric": "hit_rate_at_10"}
_SPOT = {"name": "ease", "instance_type": "ml.m5.large", "hyperparameters": {"model": "ease", "regularisation": 5}}

POLICIES = [
    policy("first", triggers=_VOLUME, action={"candidates": [_SPOT]}),
    policy(
        "drifting",
        data={"columns": {"rating": {"kind": "numerical", "test": "wasserstein", "threshold": 0.3}}},
        triggers={**_VOLUME, "drift": {"share": 0.5, "rows_min": 200, "false_alarms_per_year": None}},
        gate={"baselines": []},
    ),
    policy(
        "judged",
        data={"predictions": {"prefix": "predictions/judged/", **_PREDICTIONS}},
        triggers={**_VOLUME, "performance": {"drop": 0.3, "labels_min": 50}},
    ),
    policy("demanding", triggers=_VOLUME, gate={"min_gain": 2}, action={"refit": True}),
    policy("asked", triggers=_VOLUME, approval="manual", gate={"min_gain": -1}),
    policy("waiting"),
]


@pytest.fixture(scope="module", autouse=True)
def _first_batches(house: House) -> None:
    """Every model begins with the same batch, so that all first generations are trained beside one another.

    The first one's loses its spot instance on the way.
    """
    httpx.post(f"{house.aws.endpoint_url}/_retrainer/faults", json={"spot_interrupt": {"job": "first-"}})
    for known in POLICIES:
        house.put(f"data/{known['model']}/0.parquet", data.batch(0))


def test_an_object_in_s3_leads_by_itself_to_a_promoted_model_that_serves(house: House) -> None:
    promoted = house.decided("first", "promoted", seconds=120)
    item, *_ = house.recommended("first", [[5, 6, 7]])[0]
    assert item == 8
    assert champion(house, "first")["execution"] == promoted["execution"]


def test_the_ledger_explains_the_retraining_and_the_promotion(house: House) -> None:
    promoted = house.decided("first", "promoted", seconds=120)
    retraining = house.run("explain", promoted["execution"])
    assert "retraining - a retraining starts" in retraining
    assert "volume: 1800 new rows >= 1000" in retraining
    assert f"start_execution {promoted['execution']}: done" in retraining
    ending = house.run("explain", promoted["decision"])
    assert "promoted: ndcg_at_10" in ending
    assert "there is no champion yet" in ending
    assert "s3://retrainer-local/data/first/0.parquet" in house.run("explain", house.decisions("first")[0]["decision"])


def test_status_metrics_and_statusz_tell_of_the_champion(house: House) -> None:
    promoted = house.decided("first", "promoted", seconds=120)
    row = next(line for line in house.run("status").splitlines() if "first" in line)
    assert "g1" in row
    assert house.status("first")["champion"]["execution"] == promoted["execution"]
    assert house.metric("retrainer_decisions_total", model="first", reason="promoted") == 1
    assert house.metric("retrainer_champion_generation", model="first") == 1
    trained, billed = (
        house.metric(f"retrainer_training_{n}_total", model="first") for n in ("seconds", "billable_seconds")
    )
    assert house.metric("retrainer_training_interruptions_total", model="first") == 1
    assert 0 <= billed < trained
    assert house.metric("retrainer_spot_saving", model="first") == pytest.approx(1 - billed / trained)
    assert "spot saved" in house.run("explain", promoted["decision"])
    assert house.metric("retrainer_messages_total", kind="object_created", verdict="event") > 0


def test_only_a_drifting_batch_leads_to_a_second_generation_and_its_report_lies_in_s3(house: House) -> None:
    house.decided("drifting", "promoted", seconds=120)
    house.put("data/drifting/1.parquet", data.batch(1, steps=FEW))
    until(lambda: house.status("drifting")["window"]["rows"] == FEW * data.USERS, told=lambda: house.story("drifting"))
    assert house.status("drifting")["evidence"]["drifted"] == []
    assert len(house.decisions("drifting", "retraining")) == 1

    house.put("data/drifting/2.parquet", data.batch(2, steps=FEW, first_item=1001, rating=6.0))
    second = house.decided("drifting", "promoted", times=2)
    why = house.decisions("drifting", "retraining")[1]
    assert "drift: drift share 1.00 >= 0.5 (rating wasserstein" in why["detail"]
    assert champion(house, "drifting")["generation"] == 2
    assert second["execution"] == why["execution"]

    bucket, _, key = why["report"].removeprefix("s3://").partition("/")
    assert key == f"reports/drifting/{why['decision']}.html"
    effect = f"{why['decision']}.report"
    until(
        lambda: {e["key"]: e["status"] for e in house.get(f"/decisions/{why['decision']}")["effects"]}[effect] == "done"
    )
    page = house.s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()
    assert "rating" in page


def test_predictions_joined_with_labels_are_a_performance_and_its_fall_leads_to_a_retraining(house: House) -> None:
    house.decided("judged", "promoted", seconds=120)
    hits = serve_and_log(house, "judged", 1)
    seen = until(lambda: measured(house, "judged", labels=data.USERS), told=lambda: house.story("judged"))
    assert seen["metric"] == "hit_rate_at_10"
    assert seen["performance"] == pytest.approx(hits)
    assert hits > 0.5
    assert len(house.decisions("judged", "retraining")) == 1

    assert serve_and_log(house, "judged", 2, first_item=1001) == 0
    why = house.decided("judged", "retraining", times=2)
    assert f"hit_rate_at_10 {hits / 2:.4f} is 50% worse than {hits:.4f}" in why["detail"]


def test_with_refit_the_model_that_serves_has_learned_from_train_and_holdout(house: House) -> None:
    promoted = house.decided("demanding", "promoted", seconds=120)
    assert "trained once more, on the holdout too" in house.run("explain", promoted["decision"])
    place = champion(house, "demanding")["model_data_url"]
    assert place.endswith(f"/models/{promoted['execution']}-refit-0/output/model.tar.gz")
    body = house.s3.get_object(Bucket=house.bucket, Key=place.removeprefix(f"s3://{house.bucket}/"))["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        manifest = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert manifest["data"]["rows"] == data.STEPS * data.USERS
    assert all(manifest["data"]["channels"][channel]["files"] for channel in ("train", "holdout"))


def test_a_challenger_that_gains_too_little_is_refused_and_the_champion_stays(house: House) -> None:
    first = house.decided("demanding", "promoted", seconds=120)
    house.put("data/demanding/1.parquet", data.batch(1))
    refused = house.decided("demanding", "refused")
    assert refused["execution"].startswith("demanding-g2-")
    assert re.search(
        r"a gain of [+-][\d.]+ \(95 % interval [+-][\d.]+ to [+-][\d.]+, better in [\d.]+ % of 1,000 resamplings\) "
        r"misses the least gain of 2\.0000",
        refused["detail"],
    )
    assert champion(house, "demanding")["execution"] == first["execution"]
    assert house.status("demanding")["champion"]["generation"] == 1
    assert 8 in house.recommended("demanding", [[5, 6, 7]])[0][:2]


def test_a_person_approves_and_a_person_rejects(house: House) -> None:
    execution = house.decided("asked", "approval_requested", seconds=120)["execution"]
    assert f"retrainer approve {execution}, or reject" in house.run("status")
    assert "approved" in house.run("approve", execution, "--by", "ada")
    house.decided("asked", "promoted")

    house.put("data/asked/1.parquet", data.batch(1))
    execution = house.decided("asked", "approval_requested", times=2)["execution"]
    assert house.metric("retrainer_approval_waiting", model="asked") == 1
    house.run("reject", execution, "--by", "bob")
    ended = house.decided("asked", "rejected", times=2)
    assert ended["event"]["kind"] == "execution_ended"
    assert "Rejected by bob." in ended["detail"]
    assert champion(house, "asked")["generation"] == 1
    assert registered(house, ended) == ("Rejected", "Rejected by bob.")
    assert "not_waiting" in house.run("approve", execution, status=1)


def test_a_request_made_while_paused_is_kept_and_fires_at_the_resume(house: House) -> None:
    until(lambda: house.status("waiting")["window"]["rows"], told=lambda: house.story("waiting"))
    assert "paused" in house.run("pause", "waiting", "--why", "incident 42")
    assert "paused" in house.run("trigger", "waiting", "--why", "new catalogue")
    assert [kept["why"] for kept in house.status("waiting")["kept"]] == ["new catalogue"]
    assert house.generations("waiting") == []
    assert "retraining" in house.run("resume", "waiting")
    house.decided("waiting", "promoted")
    assert house.status("waiting")["kept"] == []


def test_every_decision_of_these_is_made_again_byte_by_byte_beside_the_running_daemon(house: House) -> None:
    promoted = house.decided("first", "promoted", seconds=120)
    told = house.run("replay", "--all")
    assert "first: " in told
    assert all(line.endswith(" replayed, all identical") for line in told.splitlines())
    chain = house.run("explain", promoted["decision"])
    assert "  led to it first-" in chain
    assert "  rules     " in chain
    assert f"  outcome   {promoted['execution']} SUCCEEDED at " in chain


def champion(house: House, model: str) -> dict[str, Any]:
    """The pointer that the state machine moves, as it lies in S3."""
    held: dict[str, Any] = json.loads(
        house.s3.get_object(Bucket=house.bucket, Key=f"champions/{model}.json")["Body"].read()
    )
    return held


def registered(house: House, ended: dict[str, Any]) -> tuple[str, str]:
    """What the model registry says of the model package of an execution that has ended."""
    arn = ended["event"]["fields"]["outcome"]["model_package_arn"]
    package = house.sagemaker.describe_model_package(ModelPackageName=arn)
    return package["ModelApprovalStatus"], package["ApprovalDescription"]


def serve_and_log(house: House, model: str, number: int, *, first_item: int = 1) -> float:
    """Ask the endpoint before each user's last interaction, log what it answers, hand the batch in; the hit rate."""
    rows = data.interactions(number, steps=FEW, first_item=first_item)
    last = (FEW - 1) * data.USERS
    items = rows["item_id"].reshape(FEW, data.USERS)
    answers = house.recommended(model, items[:-1].T.tolist())
    house.put(f"predictions/{model}/{number}.parquet", data.predictions(rows["request_id"][last:], answers))
    house.put(f"data/{model}/{number}.parquet", data.parquet(rows))
    return sum(item in answer for item, answer in zip(items[-1], answers, strict=True)) / data.USERS


def measured(house: House, model: str, *, labels: int) -> dict[str, Any] | None:
    """The model's evidence once it joins so many labels."""
    evidence: dict[str, Any] | None = house.status(model)["evidence"]
    return evidence if evidence and evidence["labels"] == labels else None
