"""What training and processing jobs have in common: their record, their thread, their end."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from retrainer.local.containers import Container
from retrainer.local.host import Host, SageMakerError, invalid, now
from retrainer.local.s3_files import DataError
from retrainer.local.store import Record

ENDED = frozenset({"Completed", "Failed", "Stopped"})
RESTARTED = "InternalServerError: the local AWS was restarted while this job was running; start a new one."


class Control:
    """How a job in progress is told to stop, and how others wait for its end."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.ended = threading.Event()


class Jobs:
    """One kind of job: its table in the store and the threads that carry jobs out.

    `kind` is the API's word ("TrainingJob" or "ProcessingJob"); `run` carries one job out and must leave it ended.
    """

    def __init__(self, host: Host, kind: str, run: Callable[[str, Control], None]) -> None:
        self.host = host
        self.kind = kind
        self._run = run
        self._controls: dict[str, Control] = {}
        self._lock = threading.Lock()
        for record in host.store.all(kind):
            if record[f"{kind}Status"] not in ENDED:
                self.end(record[f"{kind}Name"], "Failed", FailureReason=RESTARTED)

    def start(self, record: Record) -> None:
        name = record[f"{self.kind}Name"]
        with self.host.store.change(self.kind) as jobs:
            if name in jobs:
                raise SageMakerError(
                    "ResourceInUse", f"{spaced(self.kind)} names must be unique: {name} exists already."
                )
            jobs[name] = record
            control = Control()
            with self._lock:
                self._controls[name] = control
        threading.Thread(target=self._guarded, args=(name, control), name=f"job-{name}", daemon=True).start()

    def describe(self, name: str) -> Record:
        record = self.host.store.get(self.kind, name)
        if record is None:
            raise invalid(f"Requested resource not found. ({self.arn(name)})")
        return record

    def stop(self, name: str) -> Record:
        self.describe(name)
        with self.host.store.change(self.kind) as jobs:
            status = jobs[name][f"{self.kind}Status"]
            if status in ENDED:
                raise invalid(
                    f"The request was rejected because the {spaced(self.kind)} is in status {status}. "
                    "Stopping is only allowed for jobs in InProgress status."
                )
            jobs[name] |= {f"{self.kind}Status": "Stopping", "LastModifiedTime": now()}
        with self._lock:
            control = self._controls.get(name)
        if control is not None:
            control.stop.set()
        return {}

    def wait(self, name: str, seconds: float) -> bool:
        """Whether the job ended within so many seconds."""
        with self._lock:
            control = self._controls.get(name)
        return control is None or control.ended.wait(seconds)

    def update(self, name: str, **fields: object) -> Record:
        with self.host.store.change(self.kind) as jobs:
            jobs[name].update(fields, LastModifiedTime=now())
            return dict(jobs[name])

    def end(self, name: str, status: str, **fields: object) -> None:
        if self.kind == "TrainingJob":
            fields |= {"SecondaryStatus": status, "TrainingEndTime": now()}
        self.update(name, **{f"{self.kind}Status": status}, **fields)

    def arn(self, name: str) -> str:
        return self.host.arn(f"{spaced(self.kind).lower().replace(' ', '-')}/{name}")

    def work_directory(self, name: str) -> Path:
        return self.host.root / "containers" / self.kind.lower() / name

    def _guarded(self, name: str, control: Control) -> None:
        try:
            self._run(name, control)
        except DataError as error:
            self.end(name, "Failed", FailureReason=f"ClientError: {error}")
        except Exception as error:  # the job ends with its reason whatever went wrong here
            self.end(name, "Failed", FailureReason=f"InternalServerError: {type(error).__name__}: {error}")
            raise
        finally:
            control.ended.set()
            with self._lock:
                self._controls.pop(name, None)


def spaced(kind: str) -> str:
    """`TrainingJob` in words."""
    return "".join(f" {letter}" if letter.isupper() else letter for letter in kind).strip()


@contextlib.contextmanager
def running(container: Container, grace_seconds: float) -> Iterator[Container]:
    """Makes sure that the container has ended when the block is left."""
    try:
        yield container
    finally:
        container.stop(grace_seconds)
