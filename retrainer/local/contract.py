"""The container contract of SageMaker training: files and variables a training container finds at its start.

Source: "How Amazon SageMaker provides training information" (AWS), and the variables of the sagemaker-training toolkit.
"""

import json
import os
from pathlib import Path
from typing import Any

from retrainer.local.store import Record

HOST_NAME = "algo-1"


def lay_out(base: Path, job: Record) -> None:
    """Makes the directories and writes input/config/*.json."""
    for name in ("input/config", "input/data", "model", "output/data", "checkpoints"):
        (base / name).mkdir(parents=True, exist_ok=True)
    config = base / "input" / "config"
    _write(config / "hyperparameters.json", job.get("HyperParameters", {}))
    _write(config / "inputdataconfig.json", _input_data(job))
    _write(config / "resourceconfig.json", resources(job["ResourceConfig"].get("InstanceType", "local")))


def resources(instance_type: str) -> dict[str, Any]:
    return {
        "current_host": HOST_NAME,
        "current_instance_type": instance_type,
        "current_group_name": "homogeneousCluster",
        "hosts": [HOST_NAME],
        "instance_groups": [
            {"instance_group_name": "homogeneousCluster", "instance_type": instance_type, "hosts": [HOST_NAME]}
        ],
        "network_interface_name": "lo",
    }


def variables(base: Path, job: Record, region: str) -> dict[str, str]:
    """The SM_* variables and those SageMaker itself sets; the job's own Environment wins over neither."""
    channels = [channel["ChannelName"] for channel in job.get("InputDataConfig", [])]
    hyperparameters = {name: _decoded(value) for name, value in job.get("HyperParameters", {}).items()}
    found = {
        **job.get("Environment", {}),
        "TRAINING_JOB_NAME": job["TrainingJobName"],
        "TRAINING_JOB_ARN": job["TrainingJobArn"],
        "AWS_REGION": region,
        "SM_MODEL_DIR": str(base / "model"),
        "SM_INPUT_DIR": str(base / "input"),
        "SM_INPUT_CONFIG_DIR": str(base / "input" / "config"),
        "SM_OUTPUT_DIR": str(base / "output"),
        "SM_OUTPUT_DATA_DIR": str(base / "output" / "data"),
        "SM_CHANNELS": json.dumps(sorted(channels)),
        "SM_HPS": json.dumps(hyperparameters, sort_keys=True),
        "SM_CURRENT_HOST": HOST_NAME,
        "SM_HOSTS": json.dumps([HOST_NAME]),
        "SM_NETWORK_INTERFACE_NAME": "lo",
        "SM_NUM_GPUS": str(len(list(Path("/dev").glob("nvidia[0-9]*")))),
        "SM_NUM_CPUS": str(os.cpu_count() or 1),
        "SM_RESOURCE_CONFIG": json.dumps(resources(job["ResourceConfig"].get("InstanceType", "local"))),
        "SM_INPUT_DATA_CONFIG": json.dumps(_input_data(job)),
    }
    found |= {f"SM_CHANNEL_{name.upper()}": str(base / "input" / "data" / name) for name in channels}
    return found | {f"SM_HP_{name.upper()}": str(value) for name, value in job.get("HyperParameters", {}).items()}


def _input_data(job: Record) -> dict[str, Any]:
    return {
        channel["ChannelName"]: {
            "ContentType": channel.get("ContentType", "application/octet-stream"),
            "TrainingInputMode": "File",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
        }
        for channel in job.get("InputDataConfig", [])
    }


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, sort_keys=True))
