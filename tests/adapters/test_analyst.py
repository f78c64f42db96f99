"""A real worker process against a real S3: what it measures, and what becomes of it when it misbehaves."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import pytest_asyncio

from retrainer.adapters.analyst import WorkerAnalyst
from retrainer.core.effects import MeasureEvidence, PublishReport
from retrainer.core.policy import Policy
from retrainer.core.window import Batch
from retrainer.ports import PermanentError, TransientError
from tests.adapters import s3_server
from tests.adapters.s3_server import BUCKET, S3

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

COLUMNS = {
    "amount": {"kind": "numerical", "test": "wasserstein", "threshold": 0.1},
    "age": {"kind": "numerical", "test": "ks", "threshold": 0.001},
    "item": {"kind": "categorical", "test": "psi", "threshold": 0.1},
}
PREDICTIONS = {
    "prefix": "predictions/m/",
    "key": "request",
    "prediction": "items",
    "label": "item",
    "metric": "hit_rate_at_10",
}


PARENT = """
import asyncio, sys
from retrainer.adapters.analyst import WorkerAnalyst
from retrainer.core.effects import MeasureEvidence
from retrainer.core.policy import Policy

async def main():
    analyst = WorkerAnalyst()
    effect = MeasureEvidence(key="m-1.measure", reference=(), current=(), predictions=())
    await analyst.measure(effect, Policy.model_validate_json(sys.argv[1]))
    print(analyst.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
"""A daemon that has asked once, tells its worker's process id, and waits to be killed."""


def declared(columns: Mapping[str, Any] = COLUMNS, predictions: Mapping[str, Any] | None = None) -> dict[str, Any]:
    state_machine = "arn:aws:states:eu-central-1:000000000000:stateMachine:retraining"
    return {
        "model": "m",
        "data": {
            "bucket": BUCKET,
            "prefix": "data/m/",
            "timestamp": "at",
            "required_columns": ["request"],
            "columns": columns,
            "predictions": predictions,
        },
        "action": {"state_machine": state_machine, "candidates": [{"name": "ease"}]},
        "gate": {"metric": "ndcg_at_10"},
    }


def policy(columns: Mapping[str, Any] = COLUMNS, predictions: Mapping[str, Any] | None = None) -> Policy:
    return Policy.model_validate(declared(columns, predictions))


def rows(seed: int, count: int, *, shift: float = 0.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "request": [f"{seed}-{i}" for i in range(count)],
        "at": np.arange(count),
        "amount": rng.normal(shift, 1.0, count),
        "age": rng.normal(40, 10, count),
        "item": rng.integers(0, 5, count),
    }


def without(columns: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {k: v for k, v in columns.items() if k != name}


def effect(current: list[Batch], reference: list[Batch] | None = None, logged: Batch | None = None) -> MeasureEvidence:
    return MeasureEvidence(
        key="m-1.measure",
        reference=tuple(reference or ()),
        current=tuple(current),
        predictions=(logged,) if logged else (),
    )


async def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, f"not within 30 s: {what}"
        await asyncio.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server.running() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def analyst(s3: S3) -> AsyncIterator[WorkerAnalyst]:
    """One worker for all tests that leave it alive: loading Evidently takes most of their time."""
    worker = WorkerAnalyst(environment=s3.environment)
    yield worker
    pid = worker.pid
    await worker.close()
    assert pid is not None
    assert not is_alive(pid)


@asynccontextmanager
async def silent_s3() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Takes connections and never answers; the event says that a request has come."""
    asked, over = asyncio.Event(), asyncio.Event()

    async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await over.wait()
        writer.close()

    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        over.set()
        server.close()
        await server.wait_closed()


async def test_a_first_window_has_rows_and_no_drift(s3: S3, analyst: WorkerAnalyst) -> None:
    batch = s3.put("data/m/first.parquet", rows(0, 100))
    evidence = await analyst.measure(effect([batch]), policy())
    assert (evidence.rows, evidence.reference_rows, evidence.drift, evidence.performance) == (100, 0, (), None)
    assert [(b.uri, b.version, b.rows) for b in evidence.batches] == [(batch.uri, batch.version, 100)]


async def test_the_shifted_column_has_drifted_and_the_others_have_not(s3: S3, analyst: WorkerAnalyst) -> None:
    reference = [s3.put(f"data/m/reference-{i}.parquet", rows(i, 2_000)) for i in range(3)]
    current = s3.put("data/m/shifted.parquet", rows(9, 1_000, shift=1.0))
    evidence = await analyst.measure(effect([current], reference), policy())
    assert (evidence.rows, evidence.reference_rows) == (1_000, 6_000)
    assert {c.column: c.drifted for c in evidence.drift} == {"amount": True, "age": False, "item": False}
    assert {c.column: bool(c.p_value is not None and c.p_value < 1e-9) for c in evidence.drift} == {
        "amount": True,
        "age": False,
        "item": False,
    }
    assert evidence.drift_share == pytest.approx(1 / 3)
    assert evidence.drift[0].score == pytest.approx(1.0, abs=0.1)


async def test_what_cannot_be_used_is_refused_and_the_rest_is_measured(s3: S3, analyst: WorkerAnalyst) -> None:
    good = rows(1, 1_000)
    reference = s3.put("data/m/reference.parquet", rows(2, 2_000))
    whole = s3_server.parquet(good)
    current = [
        s3.put("data/m/good.parquet", good),
        s3.put("data/m/truncated.parquet", whole[: len(whole) // 2]),
        s3.put("data/m/no-item.parquet", without(good, "item")),
        s3.put("data/m/no-at.parquet", without(good, "at")),
        s3.put("data/m/text.parquet", {**good, "age": ["old"] * 1_000}),
        s3.put("data/m/deleted.parquet", good),
        s3.put("data/m/overwritten.parquet", good),
    ]
    s3.client.delete_object(Bucket=BUCKET, Key="data/m/deleted.parquet")
    s3.put("data/m/overwritten.parquet", rows(3, 1_000))
    evidence = await analyst.measure(effect(current, [reference]), policy())
    told = {r.key.removeprefix("data/m/").removesuffix(".parquet"): r.why for r in evidence.refused}
    assert told.pop("truncated").startswith("it cannot be read as parquet: ")
    assert told == {
        "no-item": "it has no column 'item'; it has request, at, amount, age",
        "no-at": "it has no column 'at'; it has request, amount, age, item",
        "text": "column 'age' holds string, not numbers",
        "deleted": "it is no longer in S3",
        "overwritten": "it has been overwritten since it arrived",
    }
    assert (evidence.rows, evidence.drift_share) == (1_000, 0.0)
    assert len(evidence.drift) == 3


async def test_predictions_are_joined_with_the_labels_of_the_current_window(s3: S3, analyst: WorkerAnalyst) -> None:
    current = s3.put("data/m/labels.parquet", {**rows(1, 4), "item": [1, 2, 3, None]})
    served = {"request": ["1-0", "1-1", "1-1", "1-3", "unknown"], "items": [[1], [9], [7, 2], [4], [1]]}
    logged = s3.put("predictions/m/a.parquet", served)
    evidence = await analyst.measure(effect([current], logged=logged), policy({}, PREDICTIONS))
    assert evidence.performance is not None
    assert (evidence.performance.value, evidence.performance.labels) == (1.0, 2)


async def test_each_batch_has_the_loss_of_its_own_labels(s3: S3, analyst: WorkerAnalyst) -> None:
    first = s3.put("data/m/loss-1.parquet", {**rows(1, 2), "item": [1, 2]})
    second = s3.put("data/m/loss-2.parquet", {**rows(2, 2), "item": [3, 4]})
    unknown = s3.put("data/m/loss-3.parquet", rows(3, 2))
    logged = s3.put("predictions/m/l.parquet", {"request": ["1-0", "1-1", "2-0"], "items": [[1], [9], [3]]})
    evidence = await analyst.measure(effect([first, second, unknown], logged=logged), policy({}, PREDICTIONS))
    assert [(x.key, x.version, x.labels, x.mean) for x in evidence.losses] == [
        (first.key, first.version, 2, 0.5),
        (second.key, second.version, 1, 0.0),
    ]
    assert evidence.estimated is None


SURE = {
    "prefix": "predictions/m/",
    "key": "request",
    "prediction": "said",
    "label": "item",
    "metric": "accuracy",
    "confidence": "sure",
}


async def test_predictions_without_any_data_have_an_estimate_and_nothing_else(s3: S3, analyst: WorkerAnalyst) -> None:
    logged = s3.put("predictions/m/sure.parquet", {"request": ["a", "b"], "said": ["x", "y"], "sure": [0.5, 0.9]})
    evidence = await analyst.measure(effect([], logged=logged), policy(COLUMNS, SURE))
    assert (evidence.rows, evidence.drift, evidence.performance, evidence.losses) == (0, (), None, ())
    assert evidence.estimated is not None
    assert evidence.estimated.value == pytest.approx(0.7)
    assert evidence.estimated.labels == 2


@pytest.mark.parametrize("written_as", ["csv", "jsonl"])
async def test_batches_and_predictions_need_not_be_parquet(s3: S3, analyst: WorkerAnalyst, written_as: str) -> None:
    def put(key: str, columns: Mapping[str, Any]) -> Batch:
        made = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        if written_as == "jsonl":
            return s3.put(f"{key}.jsonl", "\n".join(json.dumps(row, default=float) for row in made).encode())
        lines = [",".join(columns), *(",".join(str(v) for v in row.values()) for row in made)]
        return s3.put(f"{key}.csv", "\n".join(lines).encode())

    whole = declared(COLUMNS, SURE)
    whole["data"]["format"] = written_as
    old, new = put("data/m/f-old", rows(1, 2_000)), put("data/m/f-new", rows(2, 500, shift=1.0))
    served = {"request": ["2-0", "2-1"], "said": rows(2, 500)["item"][:2], "sure": [0.5, 0.9]}
    logged = put("predictions/m/f", served)
    evidence = await analyst.measure(effect([new], [old], logged), Policy.model_validate(whole))
    assert evidence.refused == ()
    assert {c.column: c.drifted for c in evidence.drift} == {"amount": True, "age": False, "item": False}
    assert evidence.performance is not None
    assert (evidence.performance.value, evidence.performance.labels) == (1.0, 2)


async def test_the_report_is_stored_as_a_page_and_doing_it_twice_is_doing_it_once(
    s3: S3, analyst: WorkerAnalyst
) -> None:
    asked = PublishReport(
        key="m-7.report",
        bucket=BUCKET,
        report_key="reports/m/m-7.html",
        reference=(s3.put("data/m/old.parquet", rows(1, 500)),),
        current=(s3.put("data/m/new.parquet", rows(2, 500, shift=2.0)),),
    )
    await analyst.publish(asked, policy())
    await analyst.publish(asked, policy())
    found = s3.client.list_objects_v2(Bucket=BUCKET, Prefix="reports/")["Contents"]
    assert {stored["Key"] for stored in found} == {asked.report_key, asked.page_key, asked.json_key}
    stored = s3.client.get_object(Bucket=BUCKET, Key=asked.report_key)
    assert stored["ContentType"].startswith("text/html")
    assert b"Drift in column 'amount'" in stored["Body"].read()


async def test_a_report_on_nothing_fails_for_good_and_the_worker_lives(s3: S3, analyst: WorkerAnalyst) -> None:
    gone = Batch(bucket=BUCKET, key="data/m/gone.parquet", version="1", size_bytes=1)
    asked = PublishReport(key="m-8.report", bucket=BUCKET, report_key="r.html", reference=(gone,), current=(gone,))
    pid = analyst.pid
    with pytest.raises(PermanentError, match=r"s3://lake/data/m/gone.parquet: it is no longer in S3"):
        await analyst.publish(asked, policy())
    assert analyst.pid == pid


async def test_a_worker_killed_in_mid_measurement_costs_one_try(s3: S3) -> None:
    async with silent_s3() as (endpoint, asked):
        settings = s3_server.environment(endpoint)
        analyst = WorkerAnalyst(environment=settings)
        batch = s3.put("data/m/a.parquet", rows(0, 10))
        measuring = asyncio.create_task(analyst.measure(effect([batch]), policy({})))
        await until(asked.is_set, "the worker's request")
        assert analyst.pid is not None
        os.kill(analyst.pid, signal.SIGKILL)
        with pytest.raises(TransientError, match=r"the evidence worker was lost: it ended .*exit status -9"):
            await measuring
        settings.update(s3.environment)
        assert (await analyst.measure(effect([batch]), policy({}))).rows == 10
        await analyst.close()


async def test_a_worker_that_hangs_is_killed_at_its_deadline(s3: S3) -> None:
    async with silent_s3() as (endpoint, _):
        settings = s3_server.environment(endpoint)
        analyst = WorkerAnalyst(deadline_seconds=3.0, environment=settings)
        batch = s3.put("data/m/a.parquet", rows(0, 10))
        measuring = asyncio.create_task(analyst.measure(effect([batch]), policy({})))
        await until(lambda: analyst.pid is not None, "the worker's start")
        pid = analyst.pid
        assert pid is not None
        with pytest.raises(TransientError, match="gave no answer in 3 s"):
            await measuring
        assert not is_alive(pid)
        assert analyst.pid is None


async def test_a_measurement_no_longer_waited_for_takes_its_worker_with_it(s3: S3) -> None:
    async with silent_s3() as (endpoint, asked):
        analyst = WorkerAnalyst(environment=s3_server.environment(endpoint))
        batch = s3.put("data/m/a.parquet", rows(0, 10))
        measuring = asyncio.create_task(analyst.measure(effect([batch]), policy({})))
        await until(asked.is_set, "the worker's request")
        pid = analyst.pid
        assert pid is not None
        measuring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await measuring
        assert not is_alive(pid)


async def test_a_batch_that_unpacks_to_more_than_its_memory_costs_the_worker_its_life(s3: S3) -> None:
    zeros = pa.nulls(500_000, pa.float64()).fill_null(0.0)
    wide = {f"c{i}": zeros for i in range(200)}
    bomb = s3.put("data/m/bomb.parquet", {**wide, "request": zeros, "at": zeros})
    assert bomb.size_bytes < 1 << 20
    small = s3.put("data/m/small.parquet", rows(0, 10))
    analyst = WorkerAnalyst(memory_bytes=300 << 20, environment=s3.environment)
    with pytest.raises(TransientError, match=r"it used \d+ MiB of memory, and may use 300"):
        await analyst.measure(effect([bomb]), policy(dict.fromkeys(wide, COLUMNS["amount"])))
    assert (await analyst.measure(effect([small]), policy({}))).rows == 10
    await analyst.close()


async def test_a_worker_dies_with_its_parent(s3: S3) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PARENT,
        json.dumps(declared({})),
        env=s3.environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert is_alive(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not is_alive(pid), "the worker's end")


async def test_the_daemons_side_loads_none_of_the_workers_libraries() -> None:
    listed = "import sys, retrainer.adapters.analyst; print(*sorted(sys.modules))"
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", listed, stdout=asyncio.subprocess.PIPE)
    loaded = (await daemon.communicate())[0].decode().split()
    assert "retrainer.adapters.analyst" in loaded
    assert not {"evidently", "pandas", "numpy", "pyarrow", "boto3"} & set(loaded)
