"""Builds images and runs containers without a Docker engine: buildah builds by chroot, podman runs with runc.

Needs root and Debian's packages buildah, mmdebstrap, podman and runc; neither user namespaces nor a registry.
All storage is one folder, thrown away with it.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOOLS = ("buildah", "mmdebstrap", "podman", "runc")
PACKAGES = "ca-certificates,netbase,tzdata,python3,python3-venv,python-is-python3"
"""What python:3.11-slim-bookworm has besides Debian itself; bookworm's python3 is 3.11."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUILD_SECONDS = 1800
RUN_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ran to its end."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Engine:
    """Images and containers in `folder`, which must not be on an overlay file system unless STORAGE_DRIVER is `vfs`."""

    folder: Path

    def base(self) -> str:
        """Debian with Python, as a local image: what the Dockerfile's base images are replaced by."""
        archive = self.folder / "base.tar"
        _call(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(archive)])
        container = self._buildah("from", "scratch")
        self._buildah("add", "--quiet", container, str(archive), "/")
        self._buildah("config", "--env", f"PATH={PATH}", container)
        self._buildah("commit", "--quiet", container, "localhost/base")
        self._buildah("rm", container)
        archive.unlink()
        return "localhost/base"

    def build(self, target: str, arguments: Mapping[str, str]) -> str:
        """The image of one target of the Dockerfile; this machine's pip settings are lent to it and stay outside."""
        settings = pip_settings()
        secret = self.folder / "pip.conf"
        secret.write_text("[global]\n" + "".join(f"{k} = {v}\n" for k, v in settings.items()))
        self._buildah(
            *("bud", "--isolation", "chroot", "--format", "docker", "--layers", "--target", target),
            *("--secret", f"id=pip.conf,src={secret}"),
            *(part for path in local_paths(settings) for part in ("--volume", f"{path}:{path}:ro")),
            *(part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")),
            *("--tag", f"localhost/retrainer-{target}", str(ROOT)),
        )
        return f"localhost/retrainer-{target}"

    def inspect(self, image: str) -> dict[str, Any]:
        """What the image says of itself: Config, HealthCheck, Size (bytes, unpacked)."""
        found: list[dict[str, Any]] = json.loads(self._podman("image", "inspect", image).out)
        return found[0]

    def run(self, image: str, *arguments: str, options: Sequence[str] = ()) -> Ended:
        """One container until it ends: no network, and a root file system that nobody can write to."""
        return self._podman("run", "--rm", *_CONTAINED, *options, image, *arguments)

    def shell(self, image: str, script: str) -> Ended:
        """A shell instead of the image's entry point."""
        return self.run(image, "-c", script, options=("--entrypoint", "/bin/sh"))

    def start(self, image: str, *arguments: str, options: Sequence[str] = ()) -> str:
        """A container in the background; its id."""
        begun = self._podman("run", "--detach", *_CONTAINED, *options, image, *arguments)
        assert begun.code == 0, begun.err
        return begun.out.strip()

    def is_healthy(self, container: str) -> bool:
        """Runs the image's own HEALTHCHECK once."""
        return self._podman("healthcheck", "run", container).code == 0

    def execute(self, container: str, *command: str) -> Ended:
        """A command inside a running container."""
        return self._podman("exec", container, *command)

    def stop(self, container: str, seconds: int) -> Ended:
        """The image's stop signal, then SIGKILL after `seconds`; the container's exit code and logs."""
        self._podman("stop", "--time", str(seconds), container)
        code = int(self._podman("inspect", "--format", "{{.State.ExitCode}}", container).out)
        logs = self._podman("logs", container)
        self._podman("rm", "--force", container)
        return Ended(code, logs.out, logs.err)

    def close(self) -> None:
        """Unmounts what is mounted and removes all."""
        self._podman("rm", "--all", "--force", "--time", "0")
        self._buildah("rm", "--all")
        shutil.rmtree(self.folder)

    def _storage(self) -> list[str]:
        driver = os.environ.get("STORAGE_DRIVER", "overlay")
        return ["--root", f"{self.folder}/store", "--runroot", f"{self.folder}/run", "--storage-driver", driver]

    def _buildah(self, *arguments: str) -> str:
        return _call(["buildah", *self._storage(), *arguments])

    def _podman(self, *arguments: str) -> Ended:
        ways = ["--tmpdir", f"{self.folder}/libpod", "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
        command = ["podman", *self._storage(), *ways, "--events-backend", "none", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
        return Ended(done.returncode, done.stdout, done.stderr)


# podman would raise the limits to what a sandbox may not; and without systemd nothing can repeat a health check.
_CONTAINED = (
    *("--read-only", "--network", "none", "--health-interval", "disable"),
    *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"),
)


def missing() -> list[str]:
    """What keeps these tests from running here."""
    return [tool for tool in TOOLS if not shutil.which(tool)] + (["root"] if os.geteuid() else [])


def pip_settings() -> dict[str, str]:
    """This machine's pip settings, of its files and of PIP_* variables; the latter come last and win."""
    listed = _call([sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"])
    lines = [line.partition("=") for line in listed.splitlines()]
    pairs = [(name, ast.literal_eval(value)) for name, _, value in lines]
    given = [(n, v) for n, v in pairs if n.startswith("global.")] + [(n, v) for n, v in pairs if n.startswith(":env:.")]
    return {name.rpartition(".")[2]: " ".join(str(value).split()) for name, value in given}


def local_paths(settings: Mapping[str, str]) -> list[Path]:
    """The folders and files of this machine that the settings name; an index of files is taken with its siblings."""
    words = [word for value in settings.values() for word in value.split()]
    indices = {Path(word.removeprefix("file://")).parent for word in words if word.startswith("file:///")}
    named = {Path(word) for word in words if word.startswith("/")}
    return sorted(path for path in indices | named if path.exists())


def _call(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout.strip()
