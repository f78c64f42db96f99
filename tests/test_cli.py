"""The command line: what it prints, what it exits with, and how it talks to a daemon that really listens."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from retrainer import wiring
from retrainer.adapters import http
from retrainer.cli import main
from retrainer.cli.ledger import shown
from retrainer.core.decide import decide
from retrainer.core.events import ModelPaused
from retrainer.core.record import digest, dump
from retrainer.core.state import ModelState
from retrainer.ports import Entry
from tests.fakes.small_daemon import POLICY, TASK_TOKEN, SmallDaemon

COMMANDS = (
    "run",
    "local",
    "demo",
    "validate",
    "test",
    "status",
    "explain",
    "replay",
    "trigger",
    "pause",
    "resume",
    "approve",
    "reject",
    "dlq",
    "ledger",
)
OF_GROUPS = ("dlq list", "dlq show", "dlq replay", "dlq drop", "ledger size", "ledger compact")
VALID = """\
model: recommender
data: {prefix: data/recommender/, timestamp: timestamp}
action: {candidates: [{name: ease}]}
gate: {metric: ndcg_at_10}
"""

T = TypeVar("T")
Out = pytest.CaptureFixture[str]


@pytest.fixture
def small() -> SmallDaemon:
    daemon = SmallDaemon()
    ran(daemon.has_data())
    return daemon


@pytest.fixture
def daemon(small: SmallDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallDaemon]:
    """A daemon that listens, where the command looks for it."""
    with Served(small) as served:
        monkeypatch.setenv("RETRAINER_HTTP_PORT", str(served.port))
        yield small


@pytest.fixture
def no_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    with http.listen("127.0.0.1", 0) as closed:
        monkeypatch.setenv("RETRAINER_HTTP_PORT", str(closed.getsockname()[1]))


class Served:
    """A small daemon behind a real server in a thread of its own."""

    def __init__(self, daemon: SmallDaemon, token: str | None = None) -> None:
        self._app = daemon.app(token=token)
        self._listener = http.listen("127.0.0.1", 0)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self.port: int = self._listener.getsockname()[1]

    def _run(self) -> None:
        self._loop.run_until_complete(http.run(self._app, self._listener, self._stopping))
        self._loop.close()

    def __enter__(self) -> "Served":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)


def ran(coroutine: Coroutine[Any, Any, T]) -> T:
    """Its result, from a loop of its own in a thread of its own: pytest-asyncio keeps the main thread's."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def main_in_thread(*args: str) -> int:
    """`main`, for a command that runs a loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(main, args).result()


def cli(*args: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "retrainer", *args], capture_output=True, text=True, timeout=30, check=False
    )


# --- help ---


def test_help_names_every_command() -> None:
    done = cli("--help")
    assert done.returncode == 0
    assert [c for c in COMMANDS if f"    {c} " not in done.stdout] == []


def test_help_imports_nothing_heavy() -> None:
    code = "import retrainer.cli, sys; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    heavy = {"pydantic", "httpx", "rich", "starlette", "sqlalchemy", "aiobotocore", "structlog"}
    assert heavy.isdisjoint(json.loads(done.stdout.replace("'", '"')))


@pytest.mark.parametrize("command", [*COMMANDS, *OF_GROUPS])
def test_every_command_shows_an_example(command: str, capsys: Out) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])
    assert caught.value.code == 0
    assert f"examples:\n  retrainer {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["retrain"],
        ["trigger", "recommender"],
        ["local", "--port", "99999"],
        ["dlq"],
        ["dlq", "list", "--limit", "0"],
        ["ledger", "compact"],
        ["ledger", "compact", "--older-than", "3h"],
    ],
)
def test_a_command_that_makes_no_sense_is_usage(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(wrong)
    assert caught.value.code == 2


# --- without a daemon ---


def test_run_without_settings_names_them_and_shows_no_traceback() -> None:
    done = cli("run")
    assert done.returncode == 2
    assert "retrainer: RETRAINER_BUCKET is not set; set it as in RETRAINER_BUCKET=" in done.stderr
    assert "Traceback" not in done.stderr


def test_validate_says_ok_or_where_it_is_wrong(tmp_path: Path, capsys: Out) -> None:
    good, bad = tmp_path / "recommender.yaml", tmp_path / "bad.yaml"
    good.write_text(VALID)
    assert main(["validate", str(good)]) == 0
    assert capsys.readouterr().out == f"{good}: OK\n"
    bad.write_text(VALID + "guards: {cooldwn: 3h}\n")
    assert main(["validate", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert f"{good}: OK" in told
    assert f"{bad}:5:10: guards.cooldwn" in told
    assert main(["validate", str(tmp_path / "none.yaml"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["valid"] == []


@pytest.mark.usefixtures("no_daemon")
@pytest.mark.parametrize("asked", [["status"], ["resume", "recommender"], ["approve", "recommender-g1-00000000"]])
def test_without_a_daemon_a_command_says_how_to_start_one(asked: list[str], capsys: Out) -> None:
    assert main(asked) == 1
    error = capsys.readouterr().err
    assert "no daemon at http://127.0.0.1:" in error
    assert "start it with `retrainer run`" in error


@pytest.mark.usefixtures("no_daemon")
def test_explain_reads_the_ledger_when_the_daemon_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    monkeypatch.setenv("RETRAINER_LEDGER", url)
    assert main_in_thread("explain", "recommender-1") == 1
    assert "without a daemon its ledger is read" in capsys.readouterr().err
    ran(written(url))
    assert main_in_thread("explain", "recommender-1") == 0
    assert capsys.readouterr().out.startswith("recommender-1: paused - ")
    assert main_in_thread("explain", "recommender-2") == 1
    assert "there is no decision, event identity or execution 'recommender-2'" in capsys.readouterr().err


@pytest.mark.usefixtures("no_daemon")
def test_the_size_of_a_ledger_is_read_when_its_daemon_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    monkeypatch.setenv("RETRAINER_LEDGER", url)
    ran(written(url))
    assert main_in_thread("ledger", "size", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"]["decisions"] == 1
    assert told["bytes"] > 4096
    assert main_in_thread("ledger", "compact", "--older-than", "90d") == 1
    assert "start it with `retrainer run`" in capsys.readouterr().err


async def written(url: str) -> None:
    """A ledger with one decision."""
    ledger = await wiring.open_ledger(url, read_only=False)
    event, before = ModelPaused(request="r", by="kim", why="holidays"), ModelState(model="recommender")
    now = SmallDaemon().now()
    decision = decide(POLICY, before, event, now)
    await ledger.commit(
        [
            Entry(
                model="recommender",
                event=event,
                now=now,
                decision=decision,
                policy=POLICY,
                policy_hash=digest(dump(POLICY)),
                state_before=before,
            )
        ]
    )
    await ledger.close()


def test_what_is_no_url_is_told(capsys: Out) -> None:
    assert main(["status", "--url", "localhost:8321"]) == 1
    assert "is not a URL; write it as in --url http://127.0.0.1:8321" in capsys.readouterr().err


# --- with a daemon ---


@pytest.mark.usefixtures("daemon")
def test_trigger_and_explain_tell_the_same_decision(capsys: Out) -> None:
    assert main(["trigger", "recommender", "--why", "new catalogue", "--by", "kim"]) == 0
    assert capsys.readouterr().out.startswith("recommender-3: retraining - a retraining starts: recommender-g1-")
    assert main(["explain", "recommender-3"]) == 0
    told = capsys.readouterr().out
    assert "came      retraining_requested: kim: new catalogue" in told
    assert "effects   start_execution recommender-g1-" in told


@pytest.mark.usefixtures("daemon")
def test_a_pause_shows_in_the_status(capsys: Out) -> None:
    assert main(["pause", "recommender", "--why", "holidays", "--by", "kim", "--request", "t-1", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["pause", "recommender", "--why", "holidays", "--by", "kim", "--request", "t-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {**first, "repeated": True}
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"]["recommender"]["pause"]["why"] == "holidays"
    assert main(["resume", "recommender", "--by", "kim"]) == 0


def test_a_waiting_execution_is_approved_by_its_name_in_the_status(
    daemon: SmallDaemon, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    name = ran(SmallDaemon(ledger=daemon.ledger).waits_for_approval())
    assert main(["status"]) == 0
    told = capsys.readouterr().out
    assert f"retrainer approve {name}" in told
    assert TASK_TOKEN not in told
    assert main(["approve", name, "--by", "kim"]) == 0
    assert ": approved - " in capsys.readouterr().out
    assert main(["reject", name, "--by", "kim"]) == 1
    assert ": not_waiting - " in capsys.readouterr().out


@pytest.mark.usefixtures("daemon")
def test_what_the_daemon_refuses_is_one_clean_line(capsys: Out) -> None:
    assert main(["trigger", "recomender", "--why", "x"]) == 1
    assert capsys.readouterr().err == "retrainer: there is no policy for that model; there are: recommender\n"
    assert main(["explain", "object:my-data/a b?c#d@1"]) == 1
    assert "no decision, event identity or execution of that name" in capsys.readouterr().err


@pytest.mark.usefixtures("daemon")
def test_an_event_with_a_strange_name_is_found_by_its_identity(capsys: Out) -> None:
    assert main(["explain", "object:my-data/data/recommender/1.parquet@1"]) == 0
    assert "came      object_created: s3://my-data/data/recommender/1.parquet (9 bytes)" in capsys.readouterr().out


def test_the_token_of_the_environment_opens_the_door(
    small: SmallDaemon, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    with Served(small, token="correct-horse-battery") as served:
        url = f"http://127.0.0.1:{served.port}"
        assert main(["status", "--url", url]) == 1
        assert "set RETRAINER_HTTP_TOKEN" in capsys.readouterr().err
        monkeypatch.setenv("RETRAINER_HTTP_TOKEN", "correct-horse-battery")
        assert main(["status", "--url", url, "--json"]) == 0


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(
    daemon: SmallDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert main(["status", "--json"]) == 0


def test_a_reader_that_has_seen_enough_is_no_error(daemon: SmallDaemon) -> None:
    piped = f"{sys.executable} -m retrainer status --json | head -c 1"
    done = subprocess.run(["sh", "-c", piped], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout, done.stderr) == ("{", "")


def test_status_says_what_asks_for_attention(daemon: SmallDaemon, capsys: Out) -> None:
    daemon.health = replace(daemon.health, live=False, why="no poll for 90 s")
    daemon.policy_errors = ["policies/x.yaml:1:1: modle: there is no such field; write model"]
    assert main(["status"]) == 0
    told = capsys.readouterr().out
    assert "not well: no poll for 90 s" in told
    assert "policy: policies/x.yaml:1:1:" in told


# --- the ledger ---


def test_the_size_of_the_ledger_is_told_table_by_table(daemon: SmallDaemon, capsys: Out) -> None:
    assert main(["ledger", "size", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == ran(daemon.ledger.counts())
    assert main(["ledger", "size"]) == 0
    shown = capsys.readouterr().out
    assert "decisions" in shown
    assert shown.endswith(" on disk, 1 effect owed\n")


def test_compaction_drops_old_bodies_and_keeps_every_decision(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    old = SmallDaemon(time=datetime(2020, 1, 2, tzinfo=UTC))
    ran(old.has_data())
    old.time = datetime.now(UTC)
    with Served(old) as served:
        monkeypatch.setenv("RETRAINER_HTTP_PORT", str(served.port))
        assert main(["ledger", "compact", "--older-than", "30d"]) == 1
        assert capsys.readouterr().err == "retrainer: what is younger than 31 days is not compacted\n"
        assert main(["ledger", "compact", "--older-than", "13w"]) == 0
        assert " rows from before " in capsys.readouterr().out
        assert main(["ledger", "compact", "--older-than", "13w", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told == {"rows": 0, "bytes_before": told["bytes_after"], "bytes_after": told["bytes_after"]}
        assert main(["explain", "recommender-1"]) == 0
        assert "its body was dropped when the ledger was compacted" in capsys.readouterr().out


def test_a_stranger_compacts_nothing(small: SmallDaemon, capsys: Out) -> None:
    with Served(small, token="correct-horse-battery") as served:
        url = f"http://127.0.0.1:{served.port}"
        assert main(["ledger", "compact", "--older-than", "90d", "--url", url]) == 1
        assert main(["ledger", "size", "--url", url]) == 1
    assert capsys.readouterr().err.count("set RETRAINER_HTTP_TOKEN") == 2


@pytest.mark.parametrize(
    ("size_bytes", "said"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5120.0 GiB")]
)
def test_a_size_is_told_as_people_read_it(size_bytes: int, said: str) -> None:
    assert shown(size_bytes) == said
