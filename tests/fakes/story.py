"""What happens to a model, told through the real `decide`: ledger entries as the loop would make them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from retrainer.core.decide import decide
from retrainer.core.effects import Effect
from retrainer.core.events import (
    ApprovalRequested,
    Event,
    EvidenceMeasured,
    ExecutionEnded,
    ExecutionStarted,
    ObjectCreated,
    RetrainingRequested,
)
from retrainer.core.evidence import Evidence
from retrainer.core.execution import Outcome, Status, Verdict
from retrainer.core.fleet import ALONE, Fleet
from retrainer.core.policy import Policy
from retrainer.core.record import digest, dump
from retrainer.core.state import ModelState
from retrainer.core.window import Batch
from retrainer.ports import Committed, Entry, Ledger

START = datetime(2026, 3, 1, 12, 0, 0, 123457, tzinfo=UTC)
ARN = "arn:aws:states:eu-west-1:123456789012:execution:retraining"


def policy_of(model: str) -> Policy:
    """A policy under which a request retrains at once, and a failed execution is tried once more."""
    return Policy.model_validate(
        {
            "model": model,
            "data": {"bucket": "lake", "prefix": f"data/{model}/", "timestamp": "timestamp"},
            "guards": {"cooldown": "1h"},
            "action": {
                "state_machine": "arn:aws:states:eu-west-1:123456789012:stateMachine:retraining",
                "candidates": [{"name": "ease"}],
            },
            "gate": {"metric": "ndcg_at_10"},
        }
    )


def decided(
    state: ModelState,
    event: Event,
    now: datetime,
    *,
    fleet: Fleet | None = None,
    completes: str | None = None,
    leased_until: datetime | None = None,
) -> Entry:
    """The entry for an event that meets `state`."""
    policy = policy_of(state.model)
    return Entry(
        model=state.model,
        event=event,
        now=now,
        decision=decide(policy, state, event, now, fleet or ALONE),
        policy=policy,
        policy_hash=digest(dump(policy)),
        state_before=state,
        fleet=fleet,
        completes=completes,
        leased_until=leased_until,
    )


class Story:
    """One model on a ledger; a minute passes with each event."""

    def __init__(self, ledger: Ledger, model: str = "recommender") -> None:
        self.ledger = ledger
        self.model = model
        self.now = START

    async def entry(self, event: Event, *, completes: str | None = None) -> Entry:
        """The decision on what the ledger holds, not committed."""
        self.now += timedelta(minutes=1)
        return decided(await self.ledger.state(self.model), event, self.now, completes=completes)

    async def tell(self, event: Event, *, completes: str | None = None) -> Entry:
        """Decide and commit."""
        entry = await self.entry(event, completes=completes)
        assert await self.ledger.commit([entry]) == [Committed.NEW]
        return entry

    async def stocked(self) -> None:
        """A batch arrives and its rows are counted, so that there is something to learn from."""
        asked = await self.tell(arrived(self.model, self.now.minute))
        effect = asked.decision.effects[0]
        await self.tell(measured(effect.key, *asked.decision.state.window), completes=effect.key)

    async def planned(self, request: str = "r1") -> str:
        """A retraining is asked for and planned; returns its execution's name."""
        await self.stocked()
        entry = await self.tell(requested(request))
        assert entry.decision.state.execution
        return entry.decision.state.execution.name

    async def running(self, request: str = "r1") -> str:
        """The same, and started."""
        name = await self.planned(request)
        await self.tell(started(name), completes=name)
        return name

    async def effect(self) -> Effect:
        """A batch arrives, so that evidence is owed; returns the effect."""
        entry = await self.tell(arrived(self.model, 1))
        return entry.decision.effects[0]


def arrived(model: str, number: int) -> ObjectCreated:
    return ObjectCreated(bucket="lake", key=f"data/{model}/{number}.parquet", version=f"v{number}", size_bytes=1000)


def requested(request: str) -> RetrainingRequested:
    return RetrainingRequested(request=request, by="ana", why="the catalogue changed")


def measured(effect: str, *batches: Batch) -> EvidenceMeasured:
    read = tuple(replace(batch, rows=1000) for batch in batches)
    return EvidenceMeasured(effect=effect, evidence=Evidence(rows=1000 * len(read), batches=read))


def started(execution: str) -> ExecutionStarted:
    return ExecutionStarted(execution=execution, arn=f"{ARN}:{execution}")


def failed(execution: str) -> ExecutionEnded:
    return ExecutionEnded(execution=execution, status=Status.FAILED, cause="CapacityError: none left")


def promoted(execution: str, *, value: float = 0.125) -> ExecutionEnded:
    outcome = Outcome(verdict=Verdict.PROMOTED, why="beats popularity", metrics={"ndcg_at_10": value})
    return ExecutionEnded(execution=execution, status=Status.SUCCEEDED, outcome=outcome)


def approval_requested(execution: str, token: str) -> ApprovalRequested:
    return ApprovalRequested(execution=execution, task_token=token, model_package_arn=None)
