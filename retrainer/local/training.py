"""Training jobs: from the channels in S3 to model.tar.gz in S3, through a real process.

Managed spot training, checkpoints, metrics, the stopping condition and StopTrainingJob follow the AWS documentation
("How SageMaker runs your training image", "Managed spot training"); the secondary states are the API reference's.
"""

import enum
import math
import re
import shutil
import time
from pathlib import Path
from typing import Any

from retrainer.local import contract
from retrainer.local.containers import Container, command_line, environment, failure_reason, local_path
from retrainer.local.host import Host, invalid, now
from retrainer.local.jobs import Control, Jobs, running
from retrainer.local.s3_files import DataError, pack, split
from retrainer.local.store import Record

TICK_SECONDS = 0.1
CHECKPOINT_SYNC_SECONDS = 1.0
# Spot capacity is billed at a discount of up to 90 % (AWS); a typical one stands in for the market here.
SPOT_BILLED_SHARE = 0.3
MESSAGES = {
    "Starting": "Launching the local process",
    "Downloading": "Downloading input data",
    "Training": "Training in progress",
    "Interrupted": "The spot instance was taken back",
    "Restarting": "Restarting on another instance",
    "Uploading": "Uploading generated training model",
    "Stopping": "Stopping the training job",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job ran longer than MaxRuntimeInSeconds",
    "MaxWaitTimeExceeded": "Training job waited longer than MaxWaitTimeInSeconds",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
}


class Cut(enum.Enum):
    """Why a container was ended before it ended itself; the value is the secondary status the job ends with."""

    STOPPED = "Stopped"
    MAX_RUNTIME = "MaxRuntimeExceeded"
    MAX_WAIT = "MaxWaitTimeExceeded"
    INTERRUPTED = "Interrupted"


class TrainingJobs:
    def __init__(self, host: Host) -> None:
        self._host = host
        self.jobs = Jobs(host, "TrainingJob", self._run)

    def create(self, request: Record) -> Record:
        check(request)
        name = request["TrainingJobName"]
        record = {
            **request,
            "TrainingJobArn": self.jobs.arn(name),
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Starting",
            "SecondaryStatusTransitions": [],
            "CreationTime": now(),
            "LastModifiedTime": now(),
        }
        self.jobs.start(record)
        return {"TrainingJobArn": record["TrainingJobArn"]}

    def _run(self, name: str, control: Control) -> None:
        work = self.jobs.work_directory(name)
        shutil.rmtree(work, ignore_errors=True)
        try:
            _Training(self, self._host, name, control, work).carry_out()
        except DataError as error:
            self.enter(name, "Failed", TrainingJobStatus="Failed", FailureReason=f"ClientError: {error}")
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def enter(self, name: str, secondary: str, **fields: object) -> None:
        """Records a secondary status and announces it on the event bus."""
        moment = now()
        transitions = self.jobs.describe(name)["SecondaryStatusTransitions"]
        if transitions:
            transitions[-1].setdefault("EndTime", moment)
        transitions.append({"Status": secondary, "StartTime": moment, "StatusMessage": MESSAGES[secondary]})
        if secondary in {"Completed", "Failed", "Stopped", "MaxRuntimeExceeded", "MaxWaitTimeExceeded"}:
            transitions[-1]["EndTime"] = moment
            fields |= {"TrainingEndTime": moment}
        record = self.jobs.update(name, SecondaryStatus=secondary, SecondaryStatusTransitions=transitions, **fields)
        self._host.emit("SageMaker Training Job State Change", record, [record["TrainingJobArn"]])


class _Training:
    """One training job on its way through the containers it needs."""

    def __init__(self, owner: TrainingJobs, host: Host, name: str, control: Control, work: Path) -> None:
        self._owner, self._host, self._control = owner, host, control
        self._name, self._work = name, work
        self._job = owner.jobs.describe(name)
        self._log = host.log_file("training", name)
        self._metrics: dict[str, Record] = {}
        self._patterns = [
            (item["Name"], re.compile(item["Regex"]))
            for item in self._job["AlgorithmSpecification"].get("MetricDefinitions", [])
        ]
        self._checkpoints: dict[Path, tuple[int, int]] = {}
        self._trained_seconds = 0.0
        self._asked_at = time.monotonic()

    def carry_out(self) -> None:
        self._owner.enter(self._name, "Starting")
        attempt = 1
        while True:
            base = self._work / str(attempt) / "ml"
            outcome = self._attempt(base)
            if outcome is not Cut.INTERRUPTED:
                break
            self._owner.enter(self._name, "Restarting")
            attempt += 1
        self._finish(base, outcome)

    def _attempt(self, base: Path) -> int | Cut:
        """One container from the download to its end; its exit code, or why it was cut short."""
        contract.lay_out(base, self._job)
        self._owner.enter(self._name, "Downloading")
        for channel in self._job.get("InputDataConfig", []):
            source = channel["DataSource"]["S3DataSource"]["S3Uri"]
            self._host.files.download_prefix(source, base / "input" / "data" / channel["ChannelName"])
        checkpoints = self._job.get("CheckpointConfig")
        if checkpoints:
            self._host.files.download_prefix(checkpoints["S3Uri"], self._checkpoint_directory(base), required=False)
        self._job.setdefault("TrainingStartTime", now())
        self._owner.enter(self._name, "Training", TrainingStartTime=self._job["TrainingStartTime"])
        started = time.monotonic()
        try:
            return self._train(base, started)
        finally:
            self._trained_seconds += time.monotonic() - started

    def _train(self, base: Path, started: float) -> int | Cut:
        specification = self._job["AlgorithmSpecification"]
        container = Container(
            command_line(
                specification.get("ContainerEntrypoint", []),
                specification.get("ContainerArguments", []),
                image=self._host.image_command(specification.get("TrainingImage", "")),
                default=["train"],
            ),
            env=environment(
                base,
                contract.variables(base, self._job, self._host.region),
                network=not self._job.get("EnableNetworkIsolation", False),
            ),
            cwd=base,
            log=self._log,
            on_line=self._read_metrics,
        )
        self._checkpoints = {}
        synced = started
        with running(container, self._host.stop_grace_seconds):
            while (code := container.wait(TICK_SECONDS)) is None:
                if time.monotonic() - synced >= CHECKPOINT_SYNC_SECONDS:
                    self._sync_checkpoints(base)
                    synced = time.monotonic()
                if cut := self._cut(time.monotonic() - started):
                    if cut in {Cut.INTERRUPTED, Cut.STOPPED}:
                        self._owner.enter(self._name, "Interrupted" if cut is Cut.INTERRUPTED else "Stopping")
                    container.stop(self._host.stop_grace_seconds)
                    self._sync_checkpoints(base)
                    return cut
            self._sync_checkpoints(base)
        return code

    def _cut(self, attempt_seconds: float) -> Cut | None:
        condition = self._job["StoppingCondition"]
        spot = self._job.get("EnableManagedSpotTraining", False)
        if self._control.stop.is_set():
            return Cut.STOPPED
        if self._trained_seconds + attempt_seconds > condition.get("MaxRuntimeInSeconds", 86400):
            return Cut.MAX_RUNTIME
        if spot and time.monotonic() - self._asked_at > condition["MaxWaitTimeInSeconds"]:
            return Cut.MAX_WAIT
        checkpointed = bool(self._checkpoints)
        if spot and self._host.faults.interrupts(
            self._name, trained_seconds=attempt_seconds, checkpointed=checkpointed
        ):
            return Cut.INTERRUPTED
        return None

    def _finish(self, base: Path, outcome: int | Cut) -> None:
        output = f"{self._job['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self._name}/output"
        if any((base / "output" / "data").iterdir()):
            self._upload(base / "output" / "data", f"{output}/output.tar.gz")
        billed = SPOT_BILLED_SHARE if self._job.get("EnableManagedSpotTraining") else 1.0
        figures: dict[str, Any] = {
            "TrainingTimeInSeconds": max(1, math.ceil(self._trained_seconds)),
            "BillableTimeInSeconds": int(max(1, math.ceil(self._trained_seconds)) * billed),
            "FinalMetricDataList": list(self._metrics.values()),
        }
        if isinstance(outcome, int) and outcome != 0:
            reason = failure_reason(base, self._log, outcome, ["output/failure"])
            self._owner.enter(self._name, "Failed", TrainingJobStatus="Failed", FailureReason=reason, **figures)
            return
        self._owner.enter(self._name, "Uploading")
        artifact = f"{output}/model.tar.gz"
        self._upload(base / "model", artifact)
        self._owner.enter(
            self._name,
            outcome.value if isinstance(outcome, Cut) else "Completed",
            TrainingJobStatus="Stopped" if isinstance(outcome, Cut) else "Completed",
            ModelArtifacts={"S3ModelArtifacts": artifact},
            **figures,
        )

    def _upload(self, directory: Path, uri: str) -> None:
        archive = self._work / Path(uri).name
        pack(directory, archive)
        self._host.files.upload_file(archive, uri)

    def _sync_checkpoints(self, base: Path) -> None:
        config = self._job.get("CheckpointConfig")
        if config:
            self._host.files.upload_directory(self._checkpoint_directory(base), config["S3Uri"], self._checkpoints)

    def _checkpoint_directory(self, base: Path) -> Path:
        directory = local_path(base, self._job["CheckpointConfig"].get("LocalPath", "/opt/ml/checkpoints"))
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _read_metrics(self, line: str) -> None:
        for name, pattern in self._patterns:
            if found := pattern.search(line):
                try:
                    value = float(found.group(1))
                except (ValueError, IndexError):
                    continue
                self._metrics[name] = {"MetricName": name, "Value": value, "Timestamp": now()}


def check(request: Record) -> None:
    """Refuses what SageMaker refuses, and what this one cannot do; required fields were checked at the door."""
    if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", request["TrainingJobName"]):
        raise invalid(
            f"Value '{request['TrainingJobName']}' at 'trainingJobName' failed to satisfy constraint: Member must "
            "satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
        )
    condition = request["StoppingCondition"]
    if request.get("EnableManagedSpotTraining"):
        wait, run = condition.get("MaxWaitTimeInSeconds"), condition.get("MaxRuntimeInSeconds", 86400)
        if wait is None or wait < run:
            raise invalid("MaxWaitTimeInSeconds must be given and not be below MaxRuntimeInSeconds for spot training")
    elif "MaxWaitTimeInSeconds" in condition:
        raise invalid("MaxWaitTimeInSeconds is only allowed when EnableManagedSpotTraining is true")
    for name, value in request.get("HyperParameters", {}).items():
        if len(value) > 2500:
            raise invalid(f"the value of hyperparameter {name} is longer than 2500 characters")
    if len(request.get("HyperParameters", {})) > 100:
        raise invalid("HyperParameters has more than 100 entries")
    _check_places(request)


def _check_places(request: Record) -> None:
    try:
        split(request["OutputDataConfig"]["S3OutputPath"])
        for channel in request.get("InputDataConfig", []):
            source = channel["DataSource"].get("S3DataSource")
            if source is None or source["S3DataType"] != "S3Prefix":
                raise invalid(f"channel {channel['ChannelName']}: the local SageMaker reads S3DataType S3Prefix only")
            split(source["S3Uri"])
        if checkpoints := request.get("CheckpointConfig"):
            split(checkpoints["S3Uri"])
            local_path(Path("/"), checkpoints.get("LocalPath", "/opt/ml/checkpoints"))
        for item in request["AlgorithmSpecification"].get("MetricDefinitions", []):
            re.compile(item["Regex"])
    except (DataError, ValueError, re.error) as error:
        raise invalid(str(error)) from error
