"""A daemon of one model without an AWS: the real `decide` and HTTP interface over a ledger in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr
from starlette.types import ASGIApp

from retrainer.adapters import http
from retrainer.adapters.metrics import CONTENT_TYPE, Metrics
from retrainer.core.decide import Decision, decide
from retrainer.core.events import (
    ApprovalRequested,
    Event,
    EvidenceMeasured,
    ExecutionStarted,
    ObjectCreated,
    RetrainingRequested,
)
from retrainer.core.evidence import Evidence
from retrainer.core.policy import Action, Candidate, Data, GateRule, Policy
from retrainer.core.record import digest, dump
from retrainer.core.window import Batch
from retrainer.ports import Committed, Entry, TransientError
from retrainer.telemetry import Health
from tests.fakes.memory_ledger import MemoryLedger

TASK_TOKEN = "task-token-that-nobody-may-see"
POLICY = Policy(
    model="recommender",
    data=Data(bucket="my-data", prefix="data/recommender/", timestamp="timestamp"),
    action=Action(
        state_machine="arn:aws:states:eu-central-1:123456789012:stateMachine:retraining",
        candidates=(Candidate(name="ease"),),
    ),
    gate=GateRule(metric="ndcg_at_10"),
    approval="manual",
)


@dataclass(slots=True)
class SmallDaemon:
    """Its clock moves a second with each decision."""

    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    time: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    health: Health = field(default_factory=lambda: Health(live=True, ready=True))
    policy_errors: list[str] = field(default_factory=list)
    is_away: bool = False

    def now(self) -> datetime:
        return self.time

    def policies(self) -> Mapping[str, tuple[Policy, str]]:
        return {"recommender": (POLICY, digest(dump(POLICY)))}

    async def take(self, model: str, event: Event) -> Decision | None:
        if self.is_away:
            raise TransientError("the ledger is away")
        policy, policy_hash = self.policies()[model]
        before = await self.ledger.state(model)
        decision = decide(policy, before, event, self.now())
        entry = Entry(
            model=model,
            event=event,
            now=self.now(),
            decision=decision,
            policy=policy,
            policy_hash=policy_hash,
            state_before=before,
        )
        self.time += timedelta(seconds=1)
        return decision if await self.ledger.commit([entry]) == [Committed.NEW] else None

    async def has_data(self) -> None:
        """A batch that was measured: decisions recommender-1 and recommender-2."""
        batch = Batch(bucket="my-data", key="data/recommender/1.parquet", version="1", size_bytes=9, rows=500)
        await self.take("recommender", ObjectCreated(bucket=batch.bucket, key=batch.key, version="1", size_bytes=9))
        evidence = Evidence(rows=500, batches=(batch,))
        await self.take("recommender", EvidenceMeasured(effect="recommender-1.measure", evidence=evidence))

    async def waits_for_approval(self) -> str:
        """An execution that waits for a person: decisions recommender-1 to recommender-5."""
        await self.has_data()
        await self.take("recommender", RetrainingRequested(request="r-1", by="kim", why="new catalogue"))
        execution = (await self.ledger.state("recommender")).execution
        assert execution is not None
        arn = f"arn:aws:states:eu-central-1:123456789012:execution:retraining:{execution.name}"
        await self.take("recommender", ExecutionStarted(execution=execution.name, arn=arn))
        await self.take("recommender", ApprovalRequested(execution=execution.name, task_token=TASK_TOKEN))
        return execution.name

    async def metrics_text(self) -> tuple[bytes, str]:
        return await Metrics(queues=[], kinds=[]).render(), CONTENT_TYPE

    def app(self, *, host: str = "127.0.0.1", token: str | None = None) -> ASGIApp:
        return http.app(
            ledger=self.ledger,
            take=self.take,
            policies=self.policies,
            policy_errors=lambda: self.policy_errors,
            metrics_text=self.metrics_text,
            health=lambda: self.health,
            clock=self,
            host=host,
            token=SecretStr(token) if token else None,
        )
