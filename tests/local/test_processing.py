"""Processing jobs of the local SageMaker."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.support import BUCKET, PROGRAMS, ROLE, Clients, until

pytestmark = pytest.mark.system


def processing(name: str, text: str, **changes: Any) -> dict[str, Any]:
    return {
        "ProcessingJobName": name,
        "AppSpecification": {
            "ImageUri": "registry.example/trainer:1",
            "ContainerEntrypoint": ["python", str(PROGRAMS / "transform.py")],
            "ContainerArguments": ["--loud"],
        },
        "ProcessingInputs": [
            {
                "InputName": "text",
                "S3Input": {
                    "S3Uri": f"s3://{BUCKET}/{text}/",
                    "LocalPath": "/opt/ml/processing/input/text",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                },
            }
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "result",
                    "S3Output": {
                        "S3Uri": f"s3://{BUCKET}/processed/{name}",
                        "LocalPath": "/opt/ml/processing/output",
                        "S3UploadMode": "EndOfJob",
                    },
                }
            ]
        },
        "ProcessingResources": {
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
        },
        "RoleArn": ROLE,
        **changes,
    }


def ended(clients: Clients, name: str) -> dict[str, Any]:
    def job() -> Any:
        found = clients.sagemaker.describe_processing_job(ProcessingJobName=name)
        return found if found["ProcessingJobStatus"] in {"Completed", "Failed", "Stopped"} else None

    found: dict[str, Any] = until(job)
    return found


def test_a_processing_job_brings_its_input_in_and_its_output_out(clients: Clients) -> None:
    clients.put("text/a.txt", b"quiet")
    clients.sagemaker.create_processing_job(**processing("capitals", "text"))
    assert ended(clients, "capitals")["ProcessingJobStatus"] == "Completed"
    assert clients.get(f"s3://{BUCKET}/processed/capitals/a.txt") == b"QUIET --loud"


def test_a_failing_processing_job_says_why(clients: Clients) -> None:
    clients.put("badtext/a.txt", b"bad")
    clients.sagemaker.create_processing_job(**processing("bad", "badtext"))
    job = ended(clients, "bad")
    assert job["ProcessingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: the text is bad, exit code: 1"


def test_a_processing_job_is_stopped(clients: Clients) -> None:
    clients.put("text/a.txt", b"quiet")
    request = processing("stopped", "text")
    request["AppSpecification"]["ContainerEntrypoint"] = ["python", "-c", "import time; time.sleep(600)"]
    clients.sagemaker.create_processing_job(**request)
    clients.sagemaker.stop_processing_job(ProcessingJobName="stopped")
    assert ended(clients, "stopped")["ProcessingJobStatus"] == "Stopped"


def test_a_path_outside_the_container_is_refused(clients: Clients) -> None:
    request = processing("outside", "text")
    request["ProcessingInputs"][0]["S3Input"]["LocalPath"] = "/opt/ml/../../etc"
    with pytest.raises(ClientError, match="not under /opt/ml"):
        clients.sagemaker.create_processing_job(**request)
