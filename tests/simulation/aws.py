"""Step Functions with the state machine that deploy/ has, in virtual time, and the evidence worker."""

import asyncio
import io
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any, cast

from botocore.exceptions import ClientError

from retrainer.core.effects import AnswerApproval, MeasureEvidence, PublishReport, StartExecution
from retrainer.core.events import ApprovalRequested, ExecutionEnded
from retrainer.core.evidence import ColumnDrift, Evidence
from retrainer.core.execution import Outcome, Status, Verdict
from retrainer.core.policy import Policy
from retrainer.core.window import Refusal
from retrainer.ports import PermanentError, TransientError, UnknownExecutionError
from steps import champion
from tests.fakes.parser import body

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from tests.simulation.world import World

ARN = "arn:aws:states:eu-west-1:111111111111:execution:retraining:"
BUCKET = "data"
KNOWN_AFTER_SECONDS = 30.0
HEARTBEAT_SECONDS = 150.0
"""Shorter than some people take."""


class Bucket:
    """S3 as far as the champion's pointer and fence need it: conditional writes."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, str]] = {}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        if Key not in self._objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        content, etag = self._objects[Key]
        return {"Body": io.BytesIO(content), "ETag": etag}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **condition: str) -> None:
        etag = self._objects[Key][1] if Key in self._objects else None
        if ("IfNoneMatch" in condition and etag) or ("IfMatch" in condition and etag != condition["IfMatch"]):
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
        self._objects[Key] = (Body, f"etag-{int(etag.removeprefix('etag-')) + 1 if etag else 1}")


@dataclass(slots=True, eq=False)
class Walk:
    """One execution on its way through the state machine. `is_ghost`: reported as ended, and walks on."""

    effect: StartExecution
    model: str
    generation: int
    decision: str
    started_at: float
    end: ExecutionEnded | None = None
    is_ghost: bool = False
    is_lost: bool = False
    token: str = ""
    answer: asyncio.Future[bool] | None = None
    beat_at: float = 0.0

    @property
    def name(self) -> str:
        return self.effect.key

    @property
    def runs(self) -> bool:
        return self.end is None and not self.is_lost


class SimEngine:
    """Implements ports.Engine; its executions walk whether or not a daemon lives."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random: Random = world.random
        self._s3 = cast("S3Client", Bucket())
        self._refused: dict[str, bool] = {}
        self.walks: dict[str, Walk] = {}
        self.answered: set[str] = set()

    # --- ports.Engine ---

    async def start(self, effect: StartExecution) -> tuple[str, bool]:
        known = self.walks.get(effect.key)
        if known:
            if known.effect.input != effect.input:
                raise PermanentError(f"{effect.key} was started with another input")
            return ARN + effect.key, True
        refused = self._refused.setdefault(effect.key, self._chance(self._world.history.faults.starts_refused))
        if refused:
            raise PermanentError("ValidationException: no such role")
        told = json.loads(effect.input)
        walk = Walk(effect, told["model"], told["generation"], told["decision_id"], self._now())
        self._world.watch.starting(walk, [w for w in self.walks.values() if w.runs and not w.is_ghost])
        self.walks[effect.key] = walk
        self._world.outside(self._walk(walk))
        return ARN + effect.key, False

    async def answer(self, effect: AnswerApproval) -> None:
        self._world.watch.answering(effect)
        walk = next((w for w in self.walks.values() if w.token == effect.task_token), None)
        if walk is None or walk.answer is None or walk.answer.done():
            raise PermanentError(f"{effect.execution} no longer waits")
        walk.answer.set_result(effect.approved)
        self.answered.add(effect.key)

    async def heartbeat(self, task_token: str) -> None:
        walk = next((w for w in self.walks.values() if w.token == task_token), None)
        if walk is None or walk.answer is None or walk.answer.done():
            raise PermanentError("TaskTimedOut: nobody waits")
        walk.beat_at = self._now()

    async def running(self, arns: Collection[str]) -> Collection[str]:
        return [arn for arn in sorted(arns) if self._is_listed(arn)]

    async def known(self, effect: StartExecution) -> str | None:
        return ARN + effect.key if effect.key in self.walks else None

    async def ended(self, arn: str) -> ExecutionEnded | None:
        name = arn.removeprefix(ARN)
        walk = self.walks.get(name)
        # DescribeExecution is eventually consistent: what was started just now may be unknown for a while.
        is_new = walk is not None and self._now() < walk.started_at + KNOWN_AFTER_SECONDS
        if walk is None or walk.is_lost or (is_new and self._chance(0.3)):
            raise UnknownExecutionError(f"AWS does not know {name}")
        return walk.end

    # --- the state machine ---

    def champion(self, model: str) -> int:
        """The generation that serves; 0 when none does."""
        known = champion.read(self._s3, BUCKET, model)
        return known.generation if known else 0

    async def _walk(self, walk: Walk) -> None:
        faults = self._world.history.faults
        await asyncio.sleep(self._random.choice((0.5, 20.0, 60.0, 200.0)) * self._random.uniform(0.5, 1.0))
        if self._chance(faults.executions_lost) and self._world.knows_arn(walk.model, walk.name):
            walk.is_lost = True
            self._told(walk, "is lost")
            return
        if self._chance(faults.executions_fail):
            status = self._random.choice((Status.FAILED, Status.TIMED_OUT, Status.ABORTED))
            self._end(walk, ExecutionEnded(execution=walk.name, status=status, cause="no spot capacity"))
            return
        judged_against = self.champion(walk.model)
        if self._chance(0.2):
            self._ends(walk, Verdict.REFUSED, "no better than the champion")
            return
        if json.loads(walk.effect.input)["approval"] == "manual" and not await self._approved(walk):
            return
        if self._chance(faults.ghosts) and self._world.knows_arn(walk.model, walk.name):
            self._end(walk, ExecutionEnded(execution=walk.name, status=Status.TIMED_OUT, cause="took too long"))
            walk.is_ghost = True
            await asyncio.sleep(self._random.uniform(0.0, 400.0))
        await self._promote(walk, judged_against)

    async def _approved(self, walk: Walk) -> bool:
        """Asks a person, as `sqs:sendMessage.waitForTaskToken` with a heartbeat does; says whether it goes on."""
        walk.token, walk.beat_at = f"token of {walk.name}", self._now()
        walk.answer = asyncio.get_running_loop().create_future()
        request = ApprovalRequested(execution=walk.name, task_token=walk.token)
        self._world.expect(walk.model, request)
        self._world.queue.send(body(request, walk.model))
        while not walk.answer.done():
            left = walk.beat_at + HEARTBEAT_SECONDS - self._now()
            if left <= 0:
                walk.answer.cancel()
                self._end(walk, ExecutionEnded(execution=walk.name, status=Status.FAILED, cause="no heartbeat"))
                return False
            await asyncio.wait([walk.answer], timeout=left)
        if not walk.answer.result():
            self._ends(walk, Verdict.REJECTED, "rejected by a person")
        return walk.answer.result()

    async def _promote(self, walk: Walk, judged_against: int) -> None:
        """As deploy/steps/promote.py: the fence, the endpoint, the pointer."""
        challenger = champion.Champion(
            model=walk.model,
            generation=walk.generation,
            model_package_arn=f"package/{walk.name}",
            model_data_url=f"s3://data/{walk.name}",
            endpoint_config=walk.name,
            execution=walk.name,
        )
        in_the_way = champion.close_fence(self._s3, BUCKET, challenger, judged_against)
        if in_the_way is None:
            await asyncio.sleep(self._random.uniform(1.0, 60.0))
            before = self.champion(walk.model)
            in_the_way = champion.crown(self._s3, BUCKET, challenger)
            self._world.watch.crowned(walk, before, self.champion(walk.model))
        if in_the_way:
            self._ends(walk, Verdict.SUPERSEDED, in_the_way)
        else:
            self._ends(walk, Verdict.PROMOTED, "better")

    def _ends(self, walk: Walk, verdict: Verdict, why: str) -> None:
        package = f"package/{walk.name}" if verdict is Verdict.PROMOTED else None
        outcome = Outcome(verdict=verdict, why=why, model_package_arn=package, metrics={"hit_rate_at_10": 0.3})
        self._end(walk, ExecutionEnded(execution=walk.name, status=Status.SUCCEEDED, outcome=outcome))

    def _end(self, walk: Walk, end: ExecutionEnded) -> None:
        """What is told of its end, once; what becomes of a ghost later is told to nobody."""
        if walk.end is None:
            walk.end = end
        self._told(walk, f"{end.status} {end.outcome.verdict if end.outcome else end.cause}")
        if not self._chance(self._world.history.faults.wakes_lost):
            self._world.queue.send("wake")

    def _is_listed(self, arn: str) -> bool:
        walk = self.walks.get(arn.removeprefix(ARN))
        # ListExecutions is eventually consistent: what runs may be missing from it.
        return bool(walk and walk.runs and not self._chance(0.1))

    def _told(self, walk: Walk, what: str) -> None:
        self._world.say("aws", f"{walk.name} {what}{' (ghost)' if walk.is_ghost else ''}")

    def _chance(self, share: float) -> bool:
        return not self._world.is_quiet and self._random.random() < share

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class SimAnalyst:
    """Implements ports.Analyst: takes its time, is lost, or has no answer."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random: Random = world.random
        self.done: set[str] = set()

    async def measure(self, effect: MeasureEvidence, policy: Policy) -> Evidence:
        await self._work(effect.key)
        read = tuple(replace(b, rows=1000) for b in effect.current if not b.key.endswith("7.parquet"))
        refused = tuple(
            Refusal(bucket=b.bucket, key=b.key, version=b.version, why="no parquet")
            for b in effect.current
            if b.key.endswith("7.parquet")
        )
        drifted = self._random.choice((0, 0, 2, 5))
        drift = tuple(
            ColumnDrift(
                column=f"c{i}", test="psi", score=0.3 if i < drifted else 0.0, threshold=0.1, drifted=i < drifted
            )
            for i in range(5)
        )
        return Evidence(rows=1000 * len(read), batches=read, refused=refused, drift=drift)

    async def publish(self, effect: PublishReport, policy: Policy) -> None:
        await self._work(effect.key)

    async def _work(self, key: str) -> None:
        faults, is_quiet = self._world.history.faults, self._world.is_quiet
        seconds = self._random.choice((0.1, 2.0, 15.0, 80.0))
        await asyncio.sleep(2.0 if is_quiet else seconds * self._random.uniform(0.5, 1.0))
        if not is_quiet and self._random.random() < faults.workers_lost:
            raise TransientError("the worker was lost")
        if not is_quiet and self._random.random() < faults.no_evidence:
            raise PermanentError("no answer can be had")
        self.done.add(key)
