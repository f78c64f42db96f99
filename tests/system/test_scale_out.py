"""Windows that are counted by Step Functions: `retrainer run` asks for it by itself, and measures the same."""

import asyncio
import json
from typing import Any

import pytest

from retrainer.wiring import open_ledger
from tests.system import data
from tests.system.house import House, policy
from tests.system.until import until

pytestmark = pytest.mark.system

COLUMNS = {
    "rating": {"kind": "numerical", "test": "wasserstein", "threshold": 0.3},
    "user_id": {"kind": "numerical", "test": "ks"},
    "item_id": {"kind": "categorical", "test": "psi"},
}
DIFFERENT = ("arrived_at", "version", "took_seconds")
WINDOWS = {"reference": {"of": "trailing"}, "current": {"batches": 1}}
NOWHERE = "arn:aws:states:us-east-1:000000000000:stateMachine:nowhere"
_WATCHING = {
    "data": {"columns": COLUMNS},
    "triggers": {"drift": {"share": 1.0, "rows_min": 10_000_000, "false_alarms_per_year": None}},
}
POLICIES = [
    policy("scaled", **_WATCHING, windows={**WINDOWS, "scale_out": {"bytes_min": 1}}),
    policy("alone", **_WATCHING, windows=WINDOWS),
    policy("astray", **_WATCHING, windows={**WINDOWS, "scale_out": {"bytes_min": 1, "state_machine": NOWHERE}}),
]


def measured(house: House, model: str, batches: int) -> list[dict[str, Any]]:
    """The evidence after each of so many batches, which are put one after the other; without what depends on names."""
    for number in range(batches):
        body = data.batch(number, rating=3.0 + number) if number < 3 else b"nothing of use"
        house.put(f"data/{model}/{number}.parquet", body)
        until(lambda n=number: len(found(house, model)) > n, told=lambda: house.story(model))  # type: ignore[misc]
    return found(house, model)


def found(house: House, model: str) -> list[dict[str, Any]]:
    """All evidence on the model, oldest first, as the ledger has it."""

    async def read() -> list[str]:
        ledger = await open_ledger(house.environment["RETRAINER_LEDGER"], read_only=True)
        try:
            told = await ledger.decisions(model, limit=500)
        finally:
            await ledger.close()
        return [d.event for d in reversed(told) if d.event_kind == "EvidenceMeasured"]

    return [_plain(json.loads(event)["evidence"], f"/{model}/") for event in asyncio.run(read())]


def _plain(value: Any, folder: str) -> Any:
    """Without the times and the folder, which two models do not share."""
    match value:
        case dict():
            return {k: _plain(v, folder) for k, v in value.items() if k not in DIFFERENT}
        case list():
            return [_plain(item, folder) for item in value]
        case str():
            return value.replace(folder, "/")
    return value


def executions(house: House) -> list[str]:
    """How every execution that profiled ended."""
    machine = house.environment["RETRAINER_PROFILE_STATE_MACHINE_ARN"]
    listed = house.states.list_executions(stateMachineArn=machine)["executions"]
    return [e["status"] for e in listed if ":execution:" in e["executionArn"] and "/" not in e["executionArn"]]


def test_evidence_by_way_of_the_state_machine_is_the_workers_own(house: House) -> None:
    by_itself = measured(house, "alone", 4)
    assert executions(house) == []
    scaled = measured(house, "scaled", 4)
    assert len(scaled[2]["drift"]) == len(COLUMNS)
    assert scaled[3]["refused"]
    assert scaled == by_itself
    assert executions(house)
    assert set(executions(house)) == {"SUCCEEDED"}


def test_the_profiles_lie_in_s3_as_the_worker_would_have_stored_them(house: House) -> None:
    until(lambda: len(found(house, "scaled")) == 4, told=lambda: house.story("scaled"))
    runs = [key for key in keys_of(house, "scaled") if "/runs/" in key]
    assert {key.rpartition("/")[2] for key in runs} == {"manifest.json", "plan.json", "items.json"}
    scaled, alone = (["/batch-" in key for key in keys_of(house, model)].count(True) for model in ("scaled", "alone"))
    assert scaled == alone > 0


def test_without_the_state_machine_the_worker_counts_by_itself_and_the_log_says_why(house: House) -> None:
    (evidence,) = measured(house, "astray", 1)
    assert evidence["rows"] == data.STEPS * data.USERS
    log = house.daemon.log.read_text()
    assert "starting astray-1-measure-" in log
    assert "the evidence worker counts by itself" in log


def keys_of(house: House, model: str) -> list[str]:
    listed = house.s3.list_objects_v2(Bucket=house.bucket, Prefix=f"profiles/{model}/")
    return [found["Key"] for found in listed["Contents"]]
