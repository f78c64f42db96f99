"""Pictures that come in another art make the champion fail, and the loop brings by itself a model that knows both."""

import base64
import json
from typing import Any

import pytest

from tests.system import shapes
from tests.system.house import House, policy
from tests.system.until import until

pytestmark = pytest.mark.system

CNN = {
    "model": "cnn",
    "pixels": str(shapes.PIXELS),
    "width": "8",
    "epochs": "8",
    "epochs_warm": "6",
    "batch_rows": "16",
    "validation_share": "0",
    "views": "1",
}
POLICIES = [
    policy(
        "images",
        data={
            "required_columns": ["image", "label", "timestamp"],
            "columns": {"image": {"kind": "image", "test": "wasserstein", "threshold": 0.5}},
            "predictions": {
                "prefix": "predictions/images/",
                "key": "request_id",
                "prediction": "answer",
                "label": "label",
                "metric": "accuracy",
            },
        },
        windows={"reference": {"of": "trailing", "batches": 1}, "current": {"batches": 1}},
        triggers={
            "volume": {"rows": 360},
            "drift": {"share": 0.3, "rows_min": 100},
            "performance": {"drop": 0.1, "labels_min": 100},
        },
        action={"candidates": [{"name": "cnn", "instance_type": "ml.m5.large", "hyperparameters": CNN}]},
        gate={"metric": "accuracy", "min_gain": 0.05, "baselines": ["majority"]},
    )
]
OLD_ONLY, MIXED = 0.0, 0.7
"""Shares of pictures in the new art."""


def test_a_collapse_of_the_answers_is_followed_by_a_promoted_model_that_knows_the_old_art_and_the_new(
    house: House,
) -> None:
    house.put("data/images/0.parquet", shapes.batch(0, 360, OLD_ONLY).rows(0))
    house.decided("images", "promoted", seconds=120)
    usual = shapes.batch(1, 120, OLD_ONLY)
    assert usual.accuracy(served(house, 1, usual), new=False) > 0.9
    until(lambda: labels_seen(house) == 120, told=lambda: house.story("images"))
    assert len(house.decisions("images", "retraining")) == 1

    released = shapes.batch(2, 200, MIXED)
    known = weights(house)
    assert released.accuracy(served(house, 2, released), new=True) < 0.6
    why = house.decided("images", "retraining", times=2)
    assert "performance: accuracy 0." in why["detail"]
    assert "image.brightness wasserstein" in why["detail"]

    assert house.decided("images", "promoted", times=2, seconds=120)["execution"] == why["execution"]
    assert weights(house) != known
    later = shapes.batch(3, 200, MIXED)
    answers = served(house, 3, later)
    assert later.accuracy(answers, new=True) > 0.85
    assert later.accuracy(answers, new=False) > 0.9


def served(house: House, number: int, batch: shapes.Batch) -> list[str]:
    """The endpoint's answers on a batch, logged; then the batch is handed in with its labels."""
    answers = [p["label"] for p in asked(house, batch)["predictions"]]
    house.put(f"predictions/images/{number}.parquet", batch.predictions(answers))
    house.put(f"data/images/{number}.parquet", batch.rows(number))
    return answers


def weights(house: House) -> str:
    """The hash of the weights that answer now."""
    return str(asked(house, shapes.batch(9, 1, OLD_ONLY))["model"]["weights_sha256"])


def asked(house: House, batch: shapes.Batch) -> dict[str, Any]:
    instances = [{"image": base64.b64encode(image).decode()} for image in batch.images]
    answer = house.runtime.invoke_endpoint(
        EndpointName="images", ContentType="application/json", Body=json.dumps({"instances": instances}).encode()
    )
    found: dict[str, Any] = json.loads(answer["Body"].read())
    return found


def labels_seen(house: House) -> int:
    """How many labels the newest measurement has joined."""
    evidence = house.status("images")["evidence"]
    return int(evidence["labels"] or 0) if evidence else 0
