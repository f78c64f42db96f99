"""What the parts of the local SageMaker share: its store, S3, the event bus, its directories, its errors."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retrainer.local.faults import Faults
from retrainer.local.s3_files import S3Files
from retrainer.local.store import Record, Store

# (detail type, detail, resource ARNs), put on the default bus with source aws.sagemaker.
Emit = Callable[[str, Record, list[str]], None]


class SageMakerError(Exception):
    """An error of the SageMaker API: its code on the wire and a message for the caller."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


def invalid(message: str) -> SageMakerError:
    return SageMakerError("ValidationException", message)


def not_found(kind: str, arn: str) -> SageMakerError:
    """SageMaker answers an unknown name with a ValidationException, not with a ResourceNotFound."""
    return invalid(f'Could not find {kind} "{arn}".')


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Everything a part of the local SageMaker may reach."""

    store: Store
    files: S3Files
    emit: Emit
    root: Path
    account: str
    region: str
    stop_grace_seconds: float = 20.0  # SageMaker gives 120 s between SIGTERM and SIGKILL
    endpoint_start_seconds: float = 90.0
    faults: Faults = field(default_factory=Faults)
    # Commands of images other than the trainer's, by the last part of the repository's name.
    images: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def arn(self, resource: str) -> str:
        return f"arn:aws:sagemaker:{self.region}:{self.account}:{resource}"

    def image_command(self, image: str) -> Sequence[str]:
        repository = image.rsplit("/", 1)[-1].split("@", 1)[0].split(":", 1)[0]
        return self.images.get(repository, ())

    def log_file(self, kind: str, name: str) -> Path:
        path = self.root / "logs" / kind / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def now() -> float:
    """Seconds since the epoch, with milliseconds, as SageMaker's timestamps have them."""
    return round(time.time(), 3)
