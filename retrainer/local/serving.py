"""One serving container: model data in, /ping, /invocations, restarted when it dies."""

import http.client
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from retrainer.local.containers import Container, command_line, environment, last_line
from retrainer.local.host import Host
from retrainer.local.s3_files import DataError, unpack
from retrainer.local.store import Record

RESTART_SECONDS = 1.0  # between the death of a container in service and its next start
INVOKE_SECONDS = 60.0  # SageMaker's limit for one invocation


@dataclass(frozen=True, slots=True)
class Answer:
    """What a container said to POST /invocations."""

    status: int
    content_type: str
    body: bytes


class Serving:
    """A thread that keeps one container up until `stop`.

    `healthy` is set when /ping answered 200 for the first time, `failed` holds the reason when it never did.
    """

    def __init__(self, host: Host, *, model: Record, log_name: str, directory: Path) -> None:
        self._host, self._model, self._directory = host, model, directory
        self._log = host.log_file("endpoints", log_name)
        self._port = free_port()
        self._stop = threading.Event()
        self.settled = threading.Event()
        self.failed: str | None = None
        self._thread = threading.Thread(target=self._keep_up, name=f"serving-{log_name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the container and waits for its end."""
        self._stop.set()
        self._thread.join()

    def invoke(self, body: bytes, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=INVOKE_SECONDS)
        try:
            connection.request("POST", "/invocations", body=body, headers=headers)
            response = connection.getresponse()
            content_type = response.headers.get("Content-Type", "application/octet-stream")
            return Answer(response.status, content_type, response.read())
        finally:
            connection.close()

    def _keep_up(self) -> None:
        try:
            self._prepare()
            while not self._stop.is_set():
                self._run_once()
                if not self.settled.is_set() or self.failed is not None:
                    break
                self._stop.wait(RESTART_SECONDS)
        except DataError as error:
            self.failed = f"Failed to download model data: {error}"
        except Exception as error:  # the endpoint reports it; a thread has nobody else to tell
            self.failed = f"InternalServerError: {type(error).__name__}: {error}"
        finally:
            self.settled.set()
            shutil.rmtree(self._directory, ignore_errors=True)

    def _prepare(self) -> None:
        model_directory = self._directory / "ml" / "model"
        shutil.rmtree(self._directory, ignore_errors=True)
        model_directory.mkdir(parents=True)
        if url := self._model.get("ModelDataUrl"):
            archive = self._directory / "model.tar.gz"
            self._host.files.download_file(url, archive)
            unpack(archive, model_directory)
            archive.unlink()

    def _run_once(self) -> None:
        base = self._directory / "ml"
        variables = {
            **self._model.get("Environment", {}),
            "SAGEMAKER_BIND_TO_PORT": str(self._port),
            "SAGEMAKER_BIND_TO_HOST": "127.0.0.1",
            "SM_MODEL_DIR": str(base / "model"),
            "AWS_REGION": self._host.region,
        }
        command = command_line([], ["serve"], image=self._host.image_command(self._model.get("Image", "")))
        container = Container(command, env=environment(base, variables), cwd=base, log=self._log)
        deadline = time.monotonic() + self._host.endpoint_start_seconds
        try:
            while (code := container.wait(0.05 if not self.settled.is_set() else 0.25)) is None:
                if self._stop.is_set():
                    return
                if not self.settled.is_set() and self._is_healthy():
                    self.settled.set()
                if not self.settled.is_set() and time.monotonic() > deadline:
                    self.failed = "The primary container for production variant did not pass the ping health check."
                    return
            if not self.settled.is_set():
                self.failed = f"The serving container ended with exit code {code}: {last_line(self._log)}"
        finally:
            container.stop(min(5.0, self._host.stop_grace_seconds))

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=2.0)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
