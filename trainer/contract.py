"""The SageMaker container contract: paths, hyperparameters, the failure file, exit codes, the stop signal.

Source: FACTS of the project and AWS "Use your own training algorithms" / "inference code". Everything lies under
``SAGEMAKER_BASE_DIR`` (the name of the sagemaker-training toolkit; /opt/ml where it is not set).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import signal
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

FAILURE_BYTES = 1024  # SageMaker shows no more of /opt/ml/output/failure
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# What says so without a MemoryError: torch's allocator on a CPU, the loader of a library, a process, a thread.
NO_MEMORY = ("can't allocate memory", "Cannot allocate memory", "failed to map segment", "can't start new thread")

Parameters = TypeVar("Parameters")


class TrainerError(Exception):
    """Ends the job with a failure file; ``kind`` is the word on its first line."""

    kind = "bug"
    exit_code = 1


class DataError(TrainerError):
    """The input cannot be used: yours to fix, a retry brings the same."""

    kind = "data"
    exit_code = 2


class HyperparameterError(DataError):
    """A hyperparameter is unknown or cannot be read."""


class ArtefactError(DataError):
    """A model directory or archive is refused."""


class DivergedError(TrainerError):
    """The loss is not a number any more, or has exploded."""

    kind = "diverged"
    exit_code = 3


class OutOfMemoryError(TrainerError):
    """More memory or disk was asked for than there is: a larger instance or volume helps, or a smaller batch."""

    kind = "memory"
    exit_code = 4


class BadRequestError(Exception):
    """An invocation that cannot be answered; the message says what to send instead."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the container reads and writes."""

    base: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Paths:
        return cls(Path(environment.get("SAGEMAKER_BASE_DIR") or "/opt/ml"))

    @property
    def hyperparameters(self) -> Path:
        return self.base / "input" / "config" / "hyperparameters.json"

    @property
    def resources(self) -> Path:
        return self.base / "input" / "config" / "resourceconfig.json"

    def channel(self, name: str) -> Path:
        return self.base / "input" / "data" / name

    @property
    def learned(self) -> tuple[Path, ...]:
        """The channels to learn from: where an accepted model is trained once more, the holdout is one too."""
        train, holdout = self.channel("train"), self.channel("holdout")
        return (train, holdout) if holdout.is_dir() else (train,)

    @property
    def model(self) -> Path:
        return self.base / "model"

    @property
    def checkpoints(self) -> Path:
        return self.base / "checkpoints"

    @property
    def failure(self) -> Path:
        return self.base / "output" / "failure"

    @property
    def message(self) -> Path:
        return self.base / "output" / "message"

    def processing_input(self, name: str) -> Path:
        return self.base / "processing" / "input" / name

    @property
    def evaluation(self) -> Path:
        return self.base / "processing" / "evaluation" / "evaluation.json"


def read_hyperparameters(file: Path) -> dict[str, str]:
    """The strings SageMaker wrote; an absent file means all defaults."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise HyperparameterError(f"{file}: not JSON: {error}") from error
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise HyperparameterError(f'{file}: give an object of strings, such as {{"model": "sasrec", "epochs": "8"}}')
    return {str(name): value for name, value in raw.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The machines of the job, as SageMaker names them; all hosts see the same list."""

    current_host: str = "localhost"
    hosts: tuple[str, ...] = ("localhost",)
    instance_type: str | None = None
    network_interface: str | None = None

    @property
    def rank(self) -> int:
        return self.hosts.index(self.current_host)


def read_resources(file: Path) -> Resources:
    """resourceconfig.json; an absent file means this machine alone. Raises DataError for one that cannot be read."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        hosts = tuple(sorted(str(host) for host in raw["hosts"]))
        found = Resources(
            current_host=str(raw["current_host"]),
            hosts=hosts,
            instance_type=raw.get("current_instance_type"),
            network_interface=raw.get("network_interface_name"),
        )
    except FileNotFoundError:
        return Resources()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: not a resource config of SageMaker: {error!r}") from error
    if found.current_host not in found.hosts:
        raise DataError(f"{file}: current_host '{found.current_host}' is not among hosts {', '.join(found.hosts)}")
    return found


def parse_hyperparameters(kind: type[Parameters], raw: Mapping[str, str]) -> Parameters:
    """``raw`` as the frozen dataclass ``kind``; its fields carry ``metadata`` ``low``, ``high`` or ``choices``.

    Names that begin with ``sagemaker_`` or ``_tuning`` are SageMaker's own and are passed over.
    """
    known = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, text in raw.items():
        if name.startswith(("sagemaker_", "_tuning")):
            continue
        if name not in known:
            raise HyperparameterError(f"hyperparameter '{name}' is unknown; give one of {', '.join(sorted(known))}")
        values[name] = _parse_value(name, text, hints[name], known[name].metadata)
    return kind(**values)


def setting(default: Any, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()) -> Any:
    """A dataclass field with its limits; both ends belong to the interval."""
    return field(default=default, metadata={"low": low, "high": high, "choices": choices})


def _parse_value(name: str, text: str, kind: Any, limits: Mapping[str, Any] | types.MappingProxyType[Any, Any]) -> Any:
    low, high, choices = limits.get("low"), limits.get("high"), limits.get("choices", ())
    if choices and text not in choices:
        raise HyperparameterError(f"hyperparameter '{name}' is '{text}'; give one of {', '.join(choices)}")
    if kind is str:
        return text
    if kind is bool:
        if text not in ("true", "false"):
            raise HyperparameterError(f"hyperparameter '{name}' is '{text}'; give true or false")
        return text == "true"
    words = {int: "a whole number", float: "a number"}[kind]
    span = f" from {low} to {high}" if high is not None else f" of at least {low}" if low is not None else ""
    complaint = HyperparameterError(f"hyperparameter '{name}' is '{text}'; give {words}{span}")
    try:
        value = kind(text)
    except ValueError:
        raise complaint from None
    if value != value or (low is not None and value < low) or (high is not None and value > high):
        raise complaint
    return value


def write_failure(paths: Paths, error: BaseException) -> int:
    """Writes the failure file (class on its first line, then what happened) and returns the exit code.

    A processing job's is called message (AWS, "Save and Access Metadata Information About Your Processing Job").
    """
    kind, code, text = classify(error)
    content = f"{kind}\n{text}".encode(errors="replace")[:FAILURE_BYTES].decode(errors="ignore")
    with contextlib.suppress(OSError):  # on a full disk, the failure itself; the log has it too, and the code stays
        paths.failure.parent.mkdir(parents=True, exist_ok=True)
        for file in (paths.failure, paths.message):
            file.write_text(content, encoding="utf-8")
    return code


def classify(error: BaseException) -> tuple[str, int, str]:
    """``(kind, exit code, message)``; torch's out-of-memory error is known by name, so torch is not imported here."""
    if isinstance(error, TrainerError):
        return error.kind, error.exit_code, str(error)
    short = OutOfMemoryError.kind, OutOfMemoryError.exit_code
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return *short, f"the disk is full ({error}); give a larger VolumeSizeInGB"
    named = type(error).__name__ == "OutOfMemoryError"
    if named or isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        return *short, f"out of memory ({error}); give a larger instance, or a smaller batch or model"
    return TrainerError.kind, TrainerError.exit_code, f"{type(error).__name__}: {error}"


class StopRequest:
    """Remembers a SIGTERM; the train loop asks between two steps and leaves with a checkpoint.

    SageMaker sends SIGTERM 120 s before SIGKILL, on StopTrainingJob and on a spot interruption. While nothing is to be
    kept (imports, reading, a model without checkpoints) nobody asks, and the process ends at once with 0.
    """

    def __init__(self) -> None:
        self.received = False
        self.is_asked = False
        self.command = ""

    def install(self, command: str = "train") -> None:
        self.command = command
        signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, _number: int, _frame: types.FrameType | None) -> None:
        self.received = True
        if not self.is_asked:
            # Not SystemExit: numpy, while it is imported, makes an ImportError of it, and a finaliser swallows it.
            with contextlib.suppress(OSError):
                os.write(1, f"{self.command}_stopped steps=0;\n".encode())
            os._exit(0)

    def __bool__(self) -> bool:
        return self.received


def leave(code: int) -> NoReturn:
    """Ends the process at once.

    Python lets go of its handlers before it ends: a SIGTERM then would turn what is done into a failure. And taking
    torch apart takes 0.7 CPU s of the 2 between a SIGTERM and the end.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
