"""An ad-hoc training job of the training image, by SageMaker's own SDK (the `sagemaker` extra), followed to its end.

Outside the loop on purpose: nothing is gated, registered or deployed. It is for trying an image or hyperparameters.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrainer.ports import ConfigError

if TYPE_CHECKING:
    from sagemaker.core.resources import TrainingJob

_NO_TELEMETRY = "SchemaVersion: '1.0'\nSageMaker:\n  PythonSDK:\n    Modules:\n      TelemetryOptOut: true\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What to train on what: S3 prefixes for the channels and the output, and the job's name up to its time stamp."""

    name: str
    image: str
    role: str
    channels: Mapping[str, str]
    output: str
    hyperparameters: Mapping[str, str]
    instance_type: str = "ml.g4dn.xlarge"
    spot: bool = True
    max_seconds: int = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """How the job ended; `model_data` is where its model.tar.gz lies, None unless it completed."""

    job: str
    status: str
    model_data: str | None
    failure: str | None


def submit(wanted: Submission, tell: Callable[[str], None]) -> Trained:
    """Start the job and follow it; `tell` gets a line at each change of its secondary status.

    Raises ConfigError when the SDK is not installed. Errors of SageMaker are the SDK's own.
    """
    with tempfile.TemporaryDirectory() as folder:
        # The SDK sends usage data unless a file of defaults says otherwise; an operator's own file goes first.
        defaults = Path(folder) / "config.yaml"
        defaults.write_text(_NO_TELEMETRY)
        os.environ.setdefault("SAGEMAKER_USER_CONFIG_OVERRIDE", str(defaults))
        # It also wants rights on the role that only jobs in a VPC need (ec2:CreateNetworkInterface), which the stack's
        # role does not have. What a role really lacks is told by SageMaker itself.
        os.environ.setdefault("SAGEMAKER_VALIDATE_ROLE", "false")
        return _follow(_start(wanted), tell)


def _start(wanted: Submission) -> "TrainingJob":
    try:
        import boto3
        from sagemaker.core.helper.session_helper import Session
        from sagemaker.train import ModelTrainer
        from sagemaker.train.configs import CheckpointConfig, Compute, InputData, OutputDataConfig, StoppingCondition
    except ImportError as error:
        raise ConfigError("submit needs SageMaker's SDK: pip install 'retrainer[sagemaker]'") from error
    wait = wanted.max_seconds * 2 if wanted.spot else None
    trainer = ModelTrainer(
        training_image=wanted.image,
        role=wanted.role,
        base_job_name=wanted.name,
        sagemaker_session=Session(boto_session=boto3.Session()),
        compute=Compute(instance_type=wanted.instance_type, instance_count=1, enable_managed_spot_training=wanted.spot),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=wanted.max_seconds, max_wait_time_in_seconds=wait),
        output_data_config=OutputDataConfig(s3_output_path=wanted.output),
        checkpoint_config=CheckpointConfig(s3_uri=f"{wanted.output.rstrip('/')}/checkpoints/{wanted.name}"),
        hyperparameters=dict(wanted.hyperparameters),
        # A container sees files, not S3; the model's manifest names where its data came from.
        environment={f"DATA_URI_{name.upper()}": uri for name, uri in wanted.channels.items()},
    )
    channels = [InputData(channel_name=name, data_source=uri) for name, uri in wanted.channels.items()]
    trainer.train(input_data_config=channels, wait=False, logs=False)
    job: TrainingJob = trainer._latest_training_job
    return job


def _follow(job: "TrainingJob", tell: Callable[[str], None]) -> Trained:
    told = ""
    while True:
        job.refresh()
        if job.secondary_status != told:
            told = str(job.secondary_status)
            tell(f"{job.training_job_name}: {job.training_job_status} ({told})")
        if job.training_job_status in ("Completed", "Failed", "Stopped"):
            break
        time.sleep(2)
    done = job.training_job_status == "Completed"
    return Trained(
        job=job.training_job_name,
        status=job.training_job_status,
        model_data=job.model_artifacts.s3_model_artifacts if done else None,
        failure=None if done else str(job.failure_reason),
    )
