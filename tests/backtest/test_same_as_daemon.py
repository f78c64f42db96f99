"""The backtest is the daemon: fed with the same events at the same moments, its loop and ledger hold the same bytes."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from retrainer.adapters.ledger_sql import SqlLedger
from retrainer.backtest.cache import Cache
from retrainer.backtest.history import open_history
from retrainer.backtest.results import Result
from retrainer.backtest.run import Backtests, Settings
from retrainer.core.decide import Decision
from retrainer.core.events import Event
from retrainer.core.policy import Policy
from retrainer.core.record import digest, dump
from retrainer.loop import Loop
from tests.backtest import stream
from tests.fakes.telemetry import KeepingTelemetry

Fed = list[tuple[Event, datetime]]


class HandClock:
    """Stands at the moment it was last set to."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


def played(folder: Path, policy: Policy, settings: Settings) -> tuple[Result, Fed]:
    fed: Fed = []

    def watch(event: Event, now: datetime, decision: Decision) -> None:
        fed.append((event, now))

    backtests = Backtests(open_history(str(folder), policy.data), settings, Cache(None))
    return backtests.run(policy, "it", watch=watch), fed


REGRET: dict[str, Any] = {"triggers": {"regret": {}}}
CLOCKED: dict[str, Any] = {
    "triggers": {"schedules": [{"name": "weekly", "cron": "0 2 * * 1"}], "volume": {"rows": 900}},
    "guards": {"cooldown": "30h", "budget": {"executions": 2, "period": "1w"}},
}
REFUSED: dict[str, Any] = {"gate": {"metric": "accuracy", "min_gain": 0.2}}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("changes", [{}, REGRET, CLOCKED, REFUSED], ids=["drift", "regret", "clocked", "refused"])
async def test_the_real_loop_and_ledger_decide_the_same_byte_for_byte(tmp_path: Path, changes: dict[str, Any]) -> None:
    policy = stream.policy(**changes)
    settings = Settings(label_delay=timedelta(days=2), with_optimum=False)
    result, fed = played(stream.write(tmp_path / "history", days=24, turns_at=12, count=100), policy, settings)
    assert len(result.retrainings) > 1
    ledger = await SqlLedger.open(f"sqlite:///{tmp_path}/ledger.db")
    clock = HandClock(fed[0][1])
    current: Mapping[str, tuple[Policy, str]] = {policy.model: (policy, digest(dump(policy)))}
    loop = Loop(policies=lambda: current, ledger=ledger, clock=clock, telemetry=KeepingTelemetry())
    for (event, now), step in zip(fed, result.steps, strict=True):
        clock.at = now
        decision = await loop.take(policy.model, event)
        assert decision
        assert (decision.id, decision.reason, decision.detail) == (step.decision, step.reason, step.detail)
        assert tuple(digest(dump(effect)) for effect in decision.effects) == step.effects
    kept = {original.id: original async for original in ledger.history(policy.model, 1)}
    await ledger.close()
    assert len(kept) == len(result.steps)
    for step in result.steps:
        original = kept[step.decision]
        assert (original.at, original.event_kind, original.event_identity) == (step.at, step.event_kind, step.identity)
        assert original.state_hash_before == step.state_hash_before
        assert original.state_hash_after == step.state_hash_after
        assert digest(original.event) == step.event
        assert original.policy_hash == result.policy_hash
        assert tuple(digest(body) for _, _, body in original.effects) == step.effects
