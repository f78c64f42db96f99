"""Measurements too large for one machine: Step Functions computes the profiles, then the evidence worker measures.

The worker finds every profile stored and reads no rows but of columns that are in doubt, so its evidence is the same
either way. An execution's name is derived from the effect and from what it is asked, so that asking twice, by two
replicas or after a crash, computes once; all that is known of its tries is what Step Functions knows.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

from retrainer.core.effects import MeasureEvidence, PublishReport
from retrainer.core.evidence import Evidence
from retrainer.core.execution import Status
from retrainer.core.policy import Policy
from retrainer.core.record import canonical
from retrainer.core.window import Batch
from retrainer.drift import keys
from retrainer.ports import Analyst, PermanentError, Telemetry, TransientError, UnknownExecutionError

TRIES = 2
"""Executions for one measurement. After the last of them has failed the worker computes what is still missing."""

LOOK_SECONDS = (1.0, 15.0)
"""How long to wait before an execution is looked at again: at first, and at the longest."""

BLIND_MAX = 20
"""How often AWS may fail to answer in a row, some four minutes, until the measurement is put off."""

T = TypeVar("T")


class Computer(Protocol):
    """Step Functions as something that computes, and S3 for what it is told. As `ports.Engine`, each call raises
    TransientError or PermanentError."""

    async def stored(self, bucket: str, prefix: str) -> Collection[str]:
        """The keys there are under a prefix."""
        ...

    async def version(self, bucket: str, key: str) -> tuple[str, int]:
        """The ETag and the bytes of an object; an empty one and 0 where there is none."""
        ...

    async def store(self, bucket: str, key: str, text: str) -> None:
        """Put a JSON document."""
        ...

    async def begin(self, state_machine: str, name: str, given: str) -> tuple[str, bool]:
        """Start an execution, or find the one of this name and input; its ARN, and whether it was no longer running."""
        ...

    async def status(self, arn: str) -> tuple[Status | None, str]:
        """What has become of it, None while it runs; and the cause."""
        ...


class ScaledAnalyst:
    """Implements `ports.Analyst` by another, which is given its profiles where the policy says `windows.scale_out`."""

    def __init__(self, analyst: Analyst, computer: Computer, telemetry: Telemetry) -> None:
        self._analyst = analyst
        self._computer = computer
        self._telemetry = telemetry

    async def measure(self, effect: MeasureEvidence, policy: Policy) -> Evidence:
        """As the analyst does; TransientError also when an execution failed and another may be tried."""
        if policy.windows.scale_out and policy.data.watched and effect.profiles:
            try:
                await self._profile(effect, policy)
            except PermanentError as error:
                self._telemetry.failed("scale_out", PermanentError(f"{error}; the evidence worker counts by itself"))
        return await self._analyst.measure(effect, policy)

    async def publish(self, effect: PublishReport, policy: Policy) -> None:
        """As the analyst does: a report is made of profiles that are stored."""
        await self._analyst.publish(effect, policy)

    async def _profile(self, effect: MeasureEvidence, policy: Policy) -> None:
        """Have the missing profiles computed if they are of enough bytes. Raises PermanentError when that fails."""
        scale_out, bucket = policy.windows.scale_out, policy.data.bucket
        assert scale_out
        asked = await self._asked(effect, policy)
        there = await _patiently(lambda: self._computer.stored(bucket, effect.profiles))
        if _missing_bytes(asked, policy, effect, there) < scale_out.bytes_min:
            return
        manifest = canonical(_manifest(effect, policy, asked))
        name = f"{effect.key.replace('.', '-')}-{hashlib.sha256(manifest.encode()).hexdigest()[:8]}"
        key = f"{effect.profiles}runs/{name}/manifest.json"
        await _patiently(lambda: self._computer.store(bucket, key, manifest))
        await self._compute(scale_out.state_machine, name, canonical({"bucket": bucket, "manifest": key}))

    async def _asked(self, effect: MeasureEvidence, policy: Policy) -> "_Asked":
        """What is compared, each object once; what a policy names by its key alone is looked up."""
        reference = await asyncio.gather(*map(self._resolved, effect.reference))
        if policy.windows.reference.of == "monitor":
            return _Asked(grid=(), statistics=tuple(reference), objects=effect.current)
        objects = {b.identity: b for b in (*reference, *effect.current)}
        return _Asked(grid=effect.grid or tuple(reference), statistics=(), objects=tuple(objects.values()))

    async def _resolved(self, batch: Batch) -> Batch:
        if batch.version:
            return batch
        version, size_bytes = await _patiently(lambda: self._computer.version(batch.bucket, batch.key))
        return replace(batch, version=version, size_bytes=size_bytes)

    async def _compute(self, state_machine: str, name: str, given: str) -> None:
        """Returns when one of the tries has succeeded. Raises TransientError after one that failed before our eyes."""
        why = ""
        for number in range(1, TRIES + 1):
            begin = partial(self._computer.begin, state_machine, f"{name}-{number}", given)
            arn, had_ended = await _patiently(begin)
            ended, cause = await self._end(arn)
            if ended is Status.SUCCEEDED:
                return
            why = f"execution {name}-{number} {ended.lower()}: {cause}"
            if not had_ended and number < TRIES:
                raise TransientError(why)
        raise PermanentError(why)

    async def _end(self, arn: str) -> tuple[Status, str]:
        """How the execution ends; its own time limit says when at the latest. Raises TransientError."""
        wait, longest = LOOK_SECONDS
        while True:
            ended, cause = await _patiently(lambda: self._computer.status(arn))
            if ended is not None:
                return ended, cause
            await asyncio.sleep(wait)
            wait = min(1.5 * wait, longest)


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Through throttling, and until Step Functions knows what it has just started."""
    wait, longest = LOOK_SECONDS
    for _ in range(BLIND_MAX):
        try:
            return await ask()
        except (TransientError, UnknownExecutionError):
            await asyncio.sleep(wait)
            wait = min(1.5 * wait, longest)
    return await ask()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is to be profiled, and what the grid is chosen from: batches, or the statistics of Model Monitor."""

    grid: tuple[Batch, ...]
    statistics: tuple[Batch, ...]
    objects: tuple[Batch, ...]


def _missing_bytes(asked: _Asked, policy: Policy, effect: MeasureEvidence, there: Collection[str]) -> int:
    """Of the objects without a profile: all of them, where the grid is new."""
    data = policy.data
    demand = keys.Demand(required=data.required_columns, timestamp=data.timestamp, written_as=data.format)
    spec = {name: column.kind for name, column in data.watched.items()}
    grid = keys.grid_key(effect.profiles, [batch.identity for batch in asked.grid], spec, demand)
    known = set(map(_name, there)) if grid in there or asked.statistics else set()
    names = {batch: _name(keys.profile_key("", "", batch.identity, demand)) for batch in asked.objects}
    return sum(batch.size_bytes for batch, name in names.items() if name not in known)


def _manifest(effect: MeasureEvidence, policy: Policy, asked: _Asked) -> dict[str, object]:
    """What deploy/steps/profile.py reads: all that the worker would have of the effect and the policy."""
    data = policy.data
    return {
        "version": 1,
        "profiles": effect.profiles,
        "format": data.format,
        "timestamp": data.timestamp,
        "required": list(data.required_columns),
        # In their order, which is that of what is stored.
        "columns": [[name, column.kind] for name, column in data.watched.items()],
        "grid": [_named(batch) for batch in asked.grid],
        "statistics": [_named(batch) for batch in asked.statistics],
        "objects": [_named(batch) for batch in asked.objects],
    }


def _named(batch: Batch) -> dict[str, object]:
    return {"bucket": batch.bucket, "key": batch.key, "version": batch.version, "size_bytes": batch.size_bytes}


def _name(key: str) -> str:
    """Of a profile, whatever grid it is counted on: its id cannot be known here, and a champion has few."""
    return key.rpartition("/")[2]
