"""Step Functions' own SageMaker integrations: `sagemaker:createTrainingJob(.sync)` and its kin."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

from retrainer.local.host import SageMakerError
from retrainer.local.jobs import Jobs
from retrainer.local.sagemaker_api import LocalSageMaker
from retrainer.local.store import Record

PREFIX = "arn:aws:states:::sagemaker:"
LOOK_SECONDS = 0.2  # between two looks at whether the execution still wants the job
# Integrations that only call the API; the two with a .sync form are in `SyncTasks.handlers`.
PLAIN = ("createModel", "createEndpointConfig", "createEndpoint", "updateEndpoint")
# The optimised integrations name errors after the Java SDK's exceptions (AWS: "Error handling in Step Functions").
ERRORS = {"ResourceInUse": "ResourceInUseException", "ResourceNotFound": "ResourceNotFoundException"}


class TaskError(Exception):
    """The task ends with this error name and cause."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause


class SyncTasks:
    """`wanted` says whether the execution and the task that called are still running; it is asked from their thread."""

    def __init__(self, sagemaker: LocalSageMaker, wanted: Callable[[], bool]) -> None:
        self._sagemaker = sagemaker
        self._wanted = wanted

    def handlers(self) -> dict[str, Callable[[str, Record], Record]]:
        """Resource prefix -> what the task does with (resource, input)."""
        training, processing = self._sagemaker.training.jobs, self._sagemaker.processing.jobs
        handlers = {PREFIX + action: self._plain(action) for action in PLAIN}
        handlers[PREFIX + "createTrainingJob"] = self._job(training)
        handlers[PREFIX + "createProcessingJob"] = self._job(processing)
        return handlers

    def _plain(self, action: str) -> Callable[[str, Record], Record]:
        return lambda _resource, request: self._call(action[0].upper() + action[1:], request)

    def _job(self, jobs: Jobs) -> Callable[[str, Record], Record]:
        def carry_out(resource: str, request: Record) -> Record:
            created = self._call(f"Create{jobs.kind}", request)
            if not resource.endswith(".sync"):
                return created
            name = request[f"{jobs.kind}Name"]
            while not jobs.wait(name, LOOK_SECONDS):
                if not self._wanted():
                    with contextlib.suppress(SageMakerError):  # it may have ended just now
                        jobs.stop(name)
                    jobs.wait(name, jobs.host.stop_grace_seconds + 10)
                    break
            record: Record = _milliseconds(jobs.describe(name))
            if record[f"{jobs.kind}Status"] != "Completed":
                raise TaskError("States.TaskFailed", json.dumps(record))
            return record

        return carry_out

    def _call(self, action: str, request: Record) -> Record:
        try:
            return self._sagemaker.call(action, request)
        except SageMakerError as error:
            name = ERRORS.get(error.code, "AmazonSageMakerException")
            raise TaskError(f"SageMaker.{name}", error.message) from error


def _milliseconds(value: Any, key: str = "") -> Any:
    """Step Functions gives SageMaker's times as milliseconds."""
    if isinstance(value, dict):
        return {name: _milliseconds(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_milliseconds(item, key) for item in value]
    if isinstance(value, float) and key.endswith(("Time", "Timestamp")):
        return int(value * 1000)
    return value
