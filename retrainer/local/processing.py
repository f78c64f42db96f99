"""Processing jobs: inputs from S3, one process, outputs back to S3."""

import json
import re
import shutil
import time
from pathlib import Path

from retrainer.local import contract
from retrainer.local.containers import Container, command_line, environment, failure_reason, local_path
from retrainer.local.host import Host, invalid, now
from retrainer.local.jobs import Control, Jobs, running
from retrainer.local.s3_files import DataError, split
from retrainer.local.store import Record

TICK_SECONDS = 0.1


class ProcessingJobs:
    def __init__(self, host: Host) -> None:
        self._host = host
        self.jobs = Jobs(host, "ProcessingJob", self._run)

    def create(self, request: Record) -> Record:
        check(request)
        name = request["ProcessingJobName"]
        record = {
            **request,
            "ProcessingJobArn": self.jobs.arn(name),
            "ProcessingJobStatus": "InProgress",
            "CreationTime": now(),
            "LastModifiedTime": now(),
        }
        self.jobs.start(record)
        return {"ProcessingJobArn": record["ProcessingJobArn"]}

    def _run(self, name: str, control: Control) -> None:
        work = self.jobs.work_directory(name)
        shutil.rmtree(work, ignore_errors=True)
        try:
            self._carry_out(self.jobs.describe(name), control, work / "ml")
        finally:
            shutil.rmtree(work, ignore_errors=True)
            record = self.jobs.describe(name)
            self._host.emit("SageMaker Processing Job State Change", record, [record["ProcessingJobArn"]])

    def _carry_out(self, job: Record, control: Control, base: Path) -> None:
        name = job["ProcessingJobName"]
        self._lay_out(job, base)
        self.jobs.update(name, ProcessingStartTime=now())
        code = self._process(job, control, base)
        ended = {"ProcessingEndTime": now()}
        if control.stop.is_set():
            self.jobs.end(name, "Stopped", **ended)
        elif code is None:
            limit = job["StoppingCondition"]["MaxRuntimeInSeconds"]
            self.jobs.end(name, "Stopped", ExitMessage=f"MaxRuntimeInSeconds ({limit}) exceeded", **ended)
        elif code != 0:
            log = self._host.log_file("processing", name)
            reason = failure_reason(base, log, code, ["output/message", "output/failure"])
            self.jobs.end(name, "Failed", FailureReason=reason, ExitMessage=reason, **ended)
        else:
            for item in job.get("ProcessingOutputConfig", {}).get("Outputs", []):
                target = item["S3Output"]
                self._host.files.upload_directory(local_path(base, target["LocalPath"]), target["S3Uri"])
            self.jobs.end(name, "Completed", **ended)

    def _lay_out(self, job: Record, base: Path) -> None:
        for name in ("config", "output"):
            (base / name).mkdir(parents=True, exist_ok=True)
        instance = job["ProcessingResources"]["ClusterConfig"]["InstanceType"]
        (base / "config" / "resourceconfig.json").write_text(json.dumps(contract.resources(instance)))
        (base / "config" / "processingjobconfig.json").write_text(json.dumps(job, sort_keys=True))
        for item in job.get("ProcessingInputs", []):
            source = item["S3Input"]
            self._host.files.download_prefix(source["S3Uri"], local_path(base, source["LocalPath"]))
        for item in job.get("ProcessingOutputConfig", {}).get("Outputs", []):
            local_path(base, item["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)

    def _process(self, job: Record, control: Control, base: Path) -> int | None:
        """The exit code, or None when the job was stopped or ran for too long."""
        specification = job["AppSpecification"]
        variables = {
            **job.get("Environment", {}),
            "PROCESSING_JOB_NAME": job["ProcessingJobName"],
            "PROCESSING_JOB_ARN": job["ProcessingJobArn"],
            "AWS_REGION": self._host.region,
        }
        container = Container(
            command_line(
                specification.get("ContainerEntrypoint", []),
                specification.get("ContainerArguments", []),
                image=self._host.image_command(specification["ImageUri"]),
            ),
            env=environment(
                base, variables, network=not job.get("NetworkConfig", {}).get("EnableNetworkIsolation", False)
            ),
            cwd=base,
            log=self._host.log_file("processing", job["ProcessingJobName"]),
        )
        deadline = time.monotonic() + job.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", 86400)
        with running(container, self._host.stop_grace_seconds):
            while (code := container.wait(TICK_SECONDS)) is None:
                if control.stop.is_set() or time.monotonic() > deadline:
                    return None
        return code


def check(request: Record) -> None:
    """Refuses what SageMaker refuses, and what this one cannot do."""
    name = request["ProcessingJobName"]
    if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name):
        raise invalid(f"Value '{name}' at 'processingJobName' is not a valid name of at most 63 characters")
    try:
        for item in request.get("ProcessingInputs", []):
            if "S3Input" not in item:
                raise invalid(f"input {item['InputName']}: the local SageMaker takes S3Input only")
            split(item["S3Input"]["S3Uri"])
            local_path(Path("/"), item["S3Input"].get("LocalPath", ""))
        for item in request.get("ProcessingOutputConfig", {}).get("Outputs", []):
            split(item["S3Output"]["S3Uri"])
            local_path(Path("/"), item["S3Output"]["LocalPath"])
    except (DataError, ValueError) as error:
        raise invalid(str(error)) from error
