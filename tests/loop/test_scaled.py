"""Measurements that Step Functions prepares: asked for once, waited for, and never in the way of a measurement."""

import asyncio
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

import pytest

from retrainer.core.effects import MeasureEvidence
from retrainer.core.execution import Status
from retrainer.core.policy import Policy
from retrainer.core.window import Batch
from retrainer.drift import keys
from retrainer.loop import LEASE_SECONDS
from retrainer.ports import PermanentError, TransientError
from retrainer.scaled import BLIND_MAX, ScaledAnalyst
from tests.fakes.analyst import KnowingAnalyst
from tests.fakes.parser import body
from tests.fakes.telemetry import KeepingTelemetry
from tests.loop.house import House, World, batch, policy, until

pytestmark = pytest.mark.looptime

MACHINE = "arn:aws:states:eu-west-1:111111111111:stateMachine:profile"


def scaling(bytes_min: int) -> Policy:
    return policy(windows={"scale_out": {"bytes_min": bytes_min, "state_machine": MACHINE}})


SCALED = scaling(1000)


DATA = SCALED.data
DEMAND = keys.Demand(required=DATA.required_columns, timestamp=DATA.timestamp, written_as=DATA.format)
GRID = keys.grid_key(
    "profiles/recommender/",
    [("data", "data/recommender/1.parquet", "v1")],
    {f"c{i}": "numerical" for i in range(10)},
    DEMAND,
)


class MemoryComputer:
    """Step Functions as AWS's pages have it: a name stands for one execution; each takes `seconds` and ends in turn."""

    def __init__(self, *ends: Status) -> None:
        self.ends = list(ends) or [Status.SUCCEEDED]
        self.seconds = 60.0
        self.objects: dict[str, str] = {}
        self.executions: dict[str, tuple[str, str, float, Status]] = {}
        self.asked: Counter[str] = Counter()
        self.refuses = ""
        self.away = 0

    async def stored(self, bucket: str, prefix: str) -> Collection[str]:
        return {key for key in self.objects if key.startswith(prefix)}

    async def version(self, bucket: str, key: str) -> tuple[str, int]:
        return (f"etag of {key}", 5000) if key.startswith("data/fixed/") else ("", 0)

    async def store(self, bucket: str, key: str, text: str) -> None:
        self.objects[key] = text

    async def begin(self, state_machine: str, name: str, given: str) -> tuple[str, bool]:
        self.asked[name] += 1
        if self.refuses:
            raise PermanentError(self.refuses)
        arn = f"{state_machine}:{name}"
        now = asyncio.get_running_loop().time()
        if arn not in self.executions:
            ended = self.ends[min(len(self.executions), len(self.ends) - 1)]
            self.executions[arn] = (name, given, now + self.seconds, ended)
        assert self.executions[arn][1] == given, "a name belongs to one input"
        return arn, self.executions[arn][2] <= now and self.asked[name] > 1

    async def status(self, arn: str) -> tuple[Status | None, str]:
        if self.away > 0:
            self.away -= 1
            raise TransientError("Step Functions is away")
        _, _, until_seconds, ended = self.executions[arn]
        if asyncio.get_running_loop().time() < until_seconds:
            return None, ""
        return ended, "" if ended is Status.SUCCEEDED else "it fell over"


class Scaled:
    """The analyst with its world."""

    def __init__(self, *ends: Status) -> None:
        self.computer, self.worker, self.telemetry = MemoryComputer(*ends), KnowingAnalyst(), KeepingTelemetry()
        self.analyst = ScaledAnalyst(self.worker, self.computer, self.telemetry)

    async def measure(self, effect: MeasureEvidence, known: Policy = SCALED) -> None:
        await self.analyst.measure(effect, known)

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.computer.executions.values()]


def large(number: int) -> Batch:
    return Batch(bucket="data", key=f"data/recommender/{number}.parquet", version=f"v{number}", size_bytes=600)


def effect(**changes: object) -> MeasureEvidence:
    given: dict[str, object] = {
        "key": "recommender-17.evidence",
        "reference": (large(1),),
        "current": (large(2),),
        "predictions": (),
        "profiles": "profiles/recommender/",
    }
    return MeasureEvidence(**{**given, **changes})  # type: ignore[arg-type]


def profile_of(found: Batch, demand: keys.Demand = DEMAND) -> str:
    named = found.bucket, found.key, found.version
    return keys.profile_key("profiles/recommender/", "0123456789abcdef", named, demand)


async def test_the_worker_measures_after_the_execution_has_ended() -> None:
    scaled = Scaled()
    began = asyncio.get_running_loop().time()
    await scaled.measure(effect())
    assert asyncio.get_running_loop().time() - began >= scaled.computer.seconds
    assert scaled.worker.measured == {"recommender-17.evidence": 1}
    assert len(scaled.names) == 1
    assert scaled.telemetry.failures == []


async def test_the_manifest_names_the_objects_once_and_what_to_count() -> None:
    scaled = Scaled()
    await scaled.measure(effect(current=(large(1), large(2)), grid=(large(0),)))
    ((key, text),) = scaled.computer.objects.items()
    manifest = json.loads(text)
    assert [o["key"] for o in manifest["objects"]] == [large(1).key, large(2).key]
    assert [o["key"] for o in manifest["grid"]] == [large(0).key]
    assert manifest["columns"] == [[f"c{i}", "numerical"] for i in range(10)]
    ((_, given, *_),) = scaled.computer.executions.values()
    assert json.loads(given) == {"bucket": "data", "manifest": key}


@pytest.mark.parametrize(
    "changes",
    [{"reference": ()}, {"profiles": ""}],
    ids=["too few bytes", "an effect of before profiles were kept"],
)
async def test_a_small_measurement_asks_nobody(changes: dict[str, object]) -> None:
    scaled = Scaled()
    await scaled.measure(effect(**changes))
    assert scaled.names == []
    assert scaled.worker.measured.total() == 1


async def test_a_policy_without_scale_out_asks_nobody() -> None:
    scaled = Scaled()
    await scaled.measure(effect(), policy())
    assert (scaled.names, scaled.computer.objects) == ([], {})


async def test_a_fixed_reference_counts_with_what_s3_says_of_it() -> None:
    scaled = Scaled()
    fixed = Batch(bucket="data", key="data/fixed/a.parquet", version="", size_bytes=0)
    await scaled.measure(effect(reference=(fixed,), current=(), grid=()))
    (text,) = scaled.computer.objects.values()
    (named,) = json.loads(text)["objects"]
    assert (named["version"], named["size_bytes"]) == ("etag of data/fixed/a.parquet", 5000)


async def test_the_statistics_of_model_monitor_are_no_object_to_count() -> None:
    statistics = Batch(bucket="data", key="data/fixed/statistics.json", version="", size_bytes=0)
    reference = {"of": "monitor", "keys": [statistics.key]}
    known = policy(windows={"reference": reference, "scale_out": {"bytes_min": 600, "state_machine": MACHINE}})
    scaled = Scaled()
    await scaled.measure(effect(reference=(statistics,)), known)
    (text,) = scaled.computer.objects.values()
    manifest = json.loads(text)
    assert [o["key"] for o in manifest["objects"]] == [large(2).key]
    assert [o["key"] for o in manifest["statistics"]] == [statistics.key]


async def test_what_has_a_profile_is_not_counted_among_the_bytes() -> None:
    scaled = Scaled()
    scaled.computer.objects |= {profile_of(large(1)): "", GRID: ""}
    await scaled.measure(effect())
    assert scaled.names == []


async def test_a_profile_under_another_policy_is_none() -> None:
    scaled = Scaled()
    scaled.computer.objects |= {profile_of(large(1), replace(DEMAND, required=("more",))): "", GRID: ""}
    await scaled.measure(effect())
    assert len(scaled.names) == 1


async def test_on_a_grid_that_is_new_nothing_has_a_profile() -> None:
    scaled = Scaled()
    scaled.computer.objects[profile_of(large(1))] = ""
    await scaled.measure(effect())
    assert len(scaled.names) == 1


async def test_the_same_measurement_asked_again_finds_its_execution() -> None:
    scaled = Scaled()
    first = asyncio.create_task(scaled.measure(effect()))
    await asyncio.sleep(5)
    first.cancel()
    await scaled.measure(effect())
    await scaled.measure(effect())
    assert len(scaled.names) == 1
    assert scaled.worker.measured.total() == 2


async def test_an_execution_that_fails_is_tried_once_more_under_another_name() -> None:
    scaled = Scaled(Status.FAILED, Status.SUCCEEDED)
    with pytest.raises(TransientError, match="-1 failed: it fell over"):
        await scaled.measure(effect())
    assert scaled.worker.measured.total() == 0
    await scaled.measure(effect())
    assert [name[-2:] for name in scaled.names] == ["-1", "-2"]
    assert scaled.telemetry.failures == []
    assert scaled.worker.measured.total() == 1


async def test_after_the_second_failure_the_worker_counts_by_itself_and_it_is_told_why() -> None:
    scaled = Scaled(Status.FAILED, Status.TIMED_OUT)
    with pytest.raises(TransientError):
        await scaled.measure(effect())
    for _ in range(2):
        await scaled.measure(effect())
    assert len(scaled.names) == 2
    assert scaled.worker.measured.total() == 2
    assert scaled.telemetry.failures[0][0] == "scale_out"
    assert "-2 timed_out: it fell over; the evidence worker counts by itself" in scaled.telemetry.failures[0][1]


async def test_a_state_machine_that_may_not_be_started_is_told_and_the_worker_counts_by_itself() -> None:
    scaled = Scaled()
    scaled.computer.refuses = "starting x: AccessDeniedException: no"
    await scaled.measure(effect())
    assert scaled.worker.measured.total() == 1
    assert scaled.telemetry.failures == [
        ("scale_out", "starting x: AccessDeniedException: no; the evidence worker counts by itself")
    ]


async def test_a_wait_outlasts_an_outage_but_not_one_without_an_end() -> None:
    scaled = Scaled()
    scaled.computer.away = BLIND_MAX
    await scaled.measure(effect())
    scaled = Scaled()
    scaled.computer.away = 10 * BLIND_MAX
    with pytest.raises(TransientError, match="away"):
        await scaled.measure(effect())


async def test_a_measurement_that_waits_for_minutes_is_done_once() -> None:
    """Its lease is renewed all the while, so that neither this replica nor another one takes it over."""
    world = World(policies={"recommender": scaling(1)})
    scaled = Scaled()
    scaled.computer.seconds = 10 * LEASE_SECONDS
    scaled.worker.drift_share = 1.0
    world.analyst = scaled.analyst  # type: ignore[assignment]
    for number in range(1, 4):
        world.inbox.send(body(batch(number)))
    async with House(world).alive(), House(world).alive():
        await until(lambda: bool(world.engine.started))
    assert scaled.names
    assert set(scaled.computer.asked.values()) == {1}
    assert set(scaled.worker.measured.values()) == {1}
