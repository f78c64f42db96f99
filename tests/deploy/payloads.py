"""The state machine's SageMaker requests with a sample execution's values in place of the paths."""

import json
import re
from typing import Any

from tests.deploy.definition import Node

EXECUTION = "recommender-g3-0a1b2c3d"
INPUT: Node = {
    "decision_id": "recommender-17",
    "model": "recommender",
    "generation": 3,
    "bucket": "artifacts",
    "manifest": {"uri": f"s3://artifacts/executions/{EXECUTION}/manifest.json", "sha256": "0" * 64},
    "data": {
        "format": "parquet",
        "required_columns": ["user_id", "item_id", "timestamp"],
        "timestamp": "timestamp",
        "holdout_share": 0.1,
        "rows": 12345,
    },
    "candidates": [
        {
            "name": "sasrec",
            "spot": True,
            "instance_type": "ml.g4dn.xlarge",
            "hyperparameters": {"model": "sasrec", "epochs": "8"},
        }
    ],
    "processing_instance_type": "ml.m5.large",
    "serving_instance_type": "ml.m5.large",
    "timeouts": {"training_seconds": 3600, "wait_seconds": 7200},
    "gate": {"metric": "ndcg_at_10", "min_gain": 0.0, "baselines": ["popularity"]},
    "approval": "auto",
    "rollout": {"canary_percent": 10, "bake_seconds": 300, "alarms": []},
    "notify": ["promoted", "refused", "rejected", "superseded", "failed"],
    "poll_seconds": 15,
}
STATE = INPUT | {
    "candidate": INPUT["candidates"][0],
    "evaluation": {
        "candidate": "sasrec",
        "job": f"{EXECUTION}-sasrec-0",
        "recipe": {"instance_type": "ml.g4dn.xlarge", "hyperparameters": {"model": "sasrec", "epochs": "8"}},
        "refit": None,
        "model_data_url": f"s3://artifacts/executions/{EXECUTION}/models/{EXECUTION}-sasrec-0/output/model.tar.gz",
        "metrics": {"ndcg_at_10": 0.12},
        "champion_metrics": None,
        "baselines": {"popularity": {"ndcg_at_10": 0.05}},
        "challenger": 0.12,
        "champion": None,
        "rows": 400,
        "comparison": None,
        "quality_uri": f"s3://artifacts/executions/{EXECUTION}/evaluation/model_quality/{EXECUTION}-sasrec-0.json",
        "cost": None,
        "billing": {"seconds": 60, "billable_seconds": 20, "interruptions": 1},
    },
    "package": {"arn": "arn:aws:sagemaker:us-east-1:123456789012:model-package/recommender/1"},
    "verdict": {"accepted": True, "reason": "ndcg_at_10 0.1200 beats popularity.", "gain": None},
    "answer": {"approved": False, "by": "somebody"},
    "checked": {"champion_generation": 0},
}
CONTEXT = {"Execution": {"Name": EXECUTION}, "State": {"RetryCount": 0}}
SUBSTITUTIONS = {
    "TrainerImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/trainer:1",
    "SageMakerRoleArn": "arn:aws:iam::123456789012:role/retrainer-sagemaker",
    "Region": "us-east-1",
}


def resolve(node: Any) -> Any:
    """The Parameters as the service gets them; a path that is not in the sample fails, as it would on AWS."""
    if isinstance(node, list):
        return [resolve(value) for value in node]
    if isinstance(node, str):
        return re.sub(r"\$\{(\w+)}", lambda match: SUBSTITUTIONS[match[1]], node)
    if not isinstance(node, dict):
        return node
    return {
        key.removesuffix(".$"): _evaluate(value) if key.endswith(".$") else resolve(value)
        for key, value in node.items()
    }


def _evaluate(text: str) -> Any:
    call = re.fullmatch(r"States\.(Format|Array)\((.*)\)", text)
    if call is None:
        return _path(text)
    arguments = [_evaluate(a) if a.startswith("$") else a.strip("'") for a in re.split(r",\s*", call[2])]
    return arguments if call[1] == "Array" else arguments[0].format(*arguments[1:])


def _path(text: str) -> Any:
    found: Any = CONTEXT if text.startswith("$$") else STATE
    for key in text.lstrip("$").strip(".").split("."):
        found = found[key]
    return json.loads(json.dumps(found))
