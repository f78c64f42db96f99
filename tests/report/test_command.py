"""`retrainer report` on a real ledger and a real S3: what it tells once the data itself is gone, and when it cannot."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from retrainer.adapters.analyst import WorkerAnalyst
from retrainer.adapters.datasets import Datasets
from retrainer.adapters.ledger_sql import SqlLedger
from retrainer.cli import main
from retrainer.core.decide import decide
from retrainer.core.effects import MeasureEvidence, PublishReport
from retrainer.core.events import Event, EvidenceMeasured, ObjectCreated
from retrainer.core.evidence import Evidence
from retrainer.core.policy import Policy
from retrainer.core.record import digest, dump
from retrainer.ports import Entry
from retrainer.worker import Worker
from tests.adapters import s3_server
from tests.adapters.s3_server import BUCKET, S3

pytestmark = pytest.mark.system

T = TypeVar("T")
Out = pytest.CaptureFixture[str]
NOW = datetime(2026, 3, 5, 9, 30, tzinfo=UTC)
POLICY = Policy.model_validate(
    {
        "model": "fraud",
        "data": {
            "bucket": BUCKET,
            "prefix": "data/fraud/",
            "timestamp": "at",
            "columns": {
                "amount": {"kind": "numerical", "test": "wasserstein"},
                "country": {"kind": "categorical", "test": "psi"},
            },
        },
        "windows": {"reference": {"of": "fixed", "keys": ["data/fraud/old.parquet"]}},
        "action": {
            "state_machine": "arn:aws:states:eu-west-1:123456789012:stateMachine:retraining",
            "candidates": [{"name": "ease"}],
        },
        "gate": {"metric": "ndcg_at_10"},
    }
)


def rows(seed: int, count: int, shift: float) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "at": np.datetime64("2026-03-01T00:00:00") + np.arange(count).astype("timedelta64[m]"),
        "amount": rng.normal(shift, 1.0, count),
        "country": np.array(["DE", "FR", "GB"])[rng.integers(0, 3, count)],
    }


def awaited(asked: Coroutine[Any, Any, T]) -> T:
    """From a test that is not a coroutine itself, as the command opens a loop of its own."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(asyncio.run, asked).result()


async def recorded(url: str, event: Event) -> MeasureEvidence | None:
    """The event decided upon and committed; the measurement that the decision asks for."""
    ledger = await SqlLedger.open(url)
    try:
        before = await ledger.state(POLICY.model)
        decision = decide(POLICY, before, event, NOW)
        entry = Entry(
            model=POLICY.model,
            event=event,
            now=NOW,
            decision=decision,
            policy=POLICY,
            policy_hash=digest(dump(POLICY)),
            state_before=before,
        )
        await ledger.commit([entry])
    finally:
        await ledger.close()
    return next((e for e in decision.effects if isinstance(e, MeasureEvidence)), None)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server.running() as server:
        yield server


@pytest.fixture
def ledger(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("RETRAINER_LEDGER", url)
    return url


def arrived(s3: S3, ledger: str) -> MeasureEvidence:
    s3.put("data/fraud/old.parquet", rows(1, 4_000, 0.0))
    new = s3.put("data/fraud/new.parquet", rows(2, 1_000, 0.8))
    event = ObjectCreated(bucket=BUCKET, key=new.key, version=new.version, size_bytes=new.size_bytes)
    asked = awaited(recorded(ledger, event))
    assert asked is not None
    return asked


@pytest.fixture
def measured(s3: S3, ledger: str) -> MeasureEvidence:
    """The data has arrived, was measured and is gone, but for the reference, which is only looked at."""
    asked = arrived(s3, ledger)
    evidence = Worker(Datasets()).measure(asked, POLICY.data)
    awaited(recorded(ledger, EvidenceMeasured(effect=asked.key, evidence=evidence)))
    for batch in asked.current:
        s3.client.delete_object(Bucket=BUCKET, Key=batch.key)
    return asked


def test_the_table_tells_what_drifted_from_the_ledger_alone(
    measured: MeasureEvidence, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert main(["report", "fraud"]) == 0
    told = capsys.readouterr().out
    assert (
        "fraud: 1 of 2 columns drifted, furthest amount: 7.9x its threshold; the first since 2026-03-05 09:30" in told
    )
    assert "2026-03-05 09:30 UTC, fraud-2" in told
    assert "1,000 rows in 1 batch, 2026-03-01 00:00 to 2026-03-01 16:39" in told
    assert "4,000 rows in 1 batch" in told
    assert "wasserstein" in told


def test_the_profiles_that_were_stored_are_enough_for_the_page_and_the_json(
    measured: MeasureEvidence, tmp_path: Path, capsys: Out
) -> None:
    file = tmp_path / "fraud.html"
    assert main(["report", "fraud", "--json", "--html", str(file)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["decision"], told["drifted"]) == ("fraud", "fraud-2", 1)
    assert told["measured_at"] == "2026-03-05T09:30:00+00:00"
    assert [column["shape"]["kind"] for column in told["columns"]] == ["density", "bars"]
    assert told["reference"]["ended"] == "2026-03-03T18:39:00+00:00"
    assert '<svg class="density"' in file.read_text()


def test_s3_being_away_is_said_with_what_can_be_had_without_it(
    measured: MeasureEvidence, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert main(["report", "fraud", "--json"]) == 1
    said = capsys.readouterr().err
    assert "127.0.0.1:1" in said
    assert "without --json, --html and --evidently the report needs the ledger only" in said


def test_a_model_that_nobody_knows_is_told_with_those_that_are(measured: MeasureEvidence, capsys: Out) -> None:
    assert main(["report", "frod"]) == 1
    assert "the ledger has no decisions on 'frod'; it has some on: fraud" in capsys.readouterr().err


def test_a_model_that_was_not_measured_yet_is_told_so(s3: S3, ledger: str, capsys: Out) -> None:
    arrived(s3, ledger)
    assert main(["report", "fraud"]) == 1
    assert "nothing was measured of fraud yet" in capsys.readouterr().err


def test_an_answer_that_was_no_longer_awaited_is_not_the_newest_measurement(
    measured: MeasureEvidence, ledger: str, capsys: Out
) -> None:
    awaited(recorded(ledger, EvidenceMeasured(effect="fraud-0.measure", evidence=Evidence(rows=7))))
    assert main(["report", "fraud"]) == 0
    assert "1,000 rows" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_named(measured: MeasureEvidence, tmp_path: Path, capsys: Out) -> None:
    assert main(["report", "fraud", "--html", str(tmp_path / "no" / "such.html")]) == 1
    assert "such.html cannot be written: No such file or directory" in capsys.readouterr().err


def test_evidently_is_loaded_for_its_own_page_only(measured: MeasureEvidence, tmp_path: Path) -> None:
    file, own = tmp_path / "evidently.html", tmp_path / "own.html"
    for options, loaded in ((["--html", str(own)], False), (["--evidently", str(file)], True)):
        program = f"""
import sys
from retrainer.cli import main
assert main(["report", "fraud", *{options!r}]) == 0
assert ("evidently" in sys.modules) is {loaded}
"""
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120, env=os.environ)
        assert (ran.returncode, ran.stderr) == (0, b"")
    assert "Drift in column 'amount'" in file.read_text()


def test_a_decision_has_its_report_as_two_pages_and_as_json(s3: S3, measured: MeasureEvidence) -> None:
    asked = PublishReport(
        key="fraud-2.report",
        bucket=BUCKET,
        report_key="reports/fraud/fraud-2.html",
        reference=measured.reference,
        current=measured.current,
        grid=measured.grid,
        profiles=measured.profiles,
    )

    async def published() -> None:
        analyst = WorkerAnalyst(environment=s3.environment)
        await analyst.publish(asked, POLICY)
        await analyst.publish(asked, POLICY)
        await analyst.close()

    awaited(published())
    found = s3.client.list_objects_v2(Bucket=BUCKET, Prefix="reports/fraud/")["Contents"]
    assert [o["Key"] for o in found] == [asked.report_key, asked.json_key, asked.page_key]
    objects = [s3.client.get_object(Bucket=BUCKET, Key=o["Key"]) for o in found]
    kinds = ["text/html; charset=utf-8", "application/json", "text/html; charset=utf-8"]
    assert [o["ContentType"] for o in objects] == kinds
    evidently, as_json, page = (o["Body"].read().decode() for o in objects)
    assert "Drift in column 'amount'" in evidently
    assert json.loads(as_json)["decision"] == "fraud-2"
    assert "1 of 2 columns drifted" in page
