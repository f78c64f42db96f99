"""One policy over one history: what happens, in order, and what answers the effects of each decision."""

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import assert_never

import pyarrow as pa

from retrainer.adapters.schedules import due
from retrainer.backtest import paired
from retrainer.backtest.cache import Cache
from retrainer.backtest.history import History, HistoryBatch
from retrainer.backtest.models import Indexes, Models
from retrainer.backtest.reading import HistoryDatasets, Measuring
from retrainer.backtest.results import BatchScore, Fired, Retraining, Step
from retrainer.backtest.task import Predicted
from retrainer.core import gate
from retrainer.core.decide import Decision, decide, decision_id
from retrainer.core.effects import AnswerApproval, Effect, MeasureEvidence, PublishReport, StartExecution
from retrainer.core.events import (
    EffectDone,
    Event,
    EvidenceMeasured,
    ExecutionEnded,
    ExecutionStarted,
    ObjectCreated,
    RetrainingRequested,
    ScheduleFired,
    Woken,
)
from retrainer.core.execution import Execution, Met, Outcome, Status, TriggerKind, Verdict
from retrainer.core.policy import Policy
from retrainer.core.reason import Reason
from retrainer.core.record import digest, dump
from retrainer.core.state import ModelState
from retrainer.ports import PermanentError

Watch = Callable[[Event, datetime, Decision], None]

_ENDED, _FIRED, _SERVED, _ARRIVED = range(4)
"""The order of what happens at one moment."""

_LEAST = timedelta(milliseconds=10)
"""A wake that is past is taken this much later, as the daemon's timers do."""

_FIRES = timedelta(days=6)
"""Fire times are asked for in pieces: `due` gives only the newest 10,000 of them, and there is one a minute at most."""


def unwatched(event: Event, now: datetime, decision: Decision) -> None:
    """Nobody looks."""


def own_cost(policy: Policy, training_takes: timedelta) -> float | None:
    """What one execution costs: the instances' time where their prices are declared, else the policy's own figure."""
    prices = [c.price_per_hour for c in policy.action.candidates]
    if policy.costs and policy.costs.execution is not None:
        return policy.costs.execution
    if not any(prices):
        return None
    return sum(price or 0.0 for price in prices) * (training_takes / timedelta(hours=1))


class Play:
    """`steps`, `retrainings` and `learned` (the batches of each generation's manifest) are there after `play`."""

    def __init__(
        self,
        *,
        policy: Policy,
        history: History,
        models: Models,
        cache: Cache,
        warmup: int,
        training_takes: timedelta,
        tell: Callable[[str], object],
        watch: Watch,
    ) -> None:
        self._policy, self._history, self._models = policy, history, models
        self._warmup, self._takes, self._tell, self._watch = warmup, training_takes, tell, watch
        self._places = {b.key: b.index for b in history.batches}
        self._measuring = Measuring(HistoryDatasets(history, policy.data, self._logged), policy.data, cache)
        self._state = ModelState(model=policy.model)
        self._hash = digest(dump(self._state))
        self._now = history.batches[0].at
        self._coming: list[tuple[datetime, int, int, Callable[[], None]]] = []
        self._order = count()
        self._arrived = 0
        self._served: dict[int, tuple[int, float, int]] = {}
        self._drift: dict[int, float] = {}
        self._logs: dict[str, tuple[int, int]] = {}
        self._holdout_shares: dict[int, float] = {}
        self.learned: dict[int, Indexes] = {}
        self.steps: list[Step] = []
        self.retrainings: list[Retraining] = []

    def play(self) -> None:
        """Everything up to the arrival of the last batch with its labels, then the end of what still runs by then."""
        batches = self._history.batches
        for batch in batches:
            self._at(batch.at, _SERVED, partial(self._serve, batch))
            self._at(batch.label_at, _ARRIVED, partial(self._arrive, batch))
        for fired in _fires(self._policy, batches[0].at, batches[-1].label_at):
            self._at(fired.fire_at, _FIRED, partial(self._take, fired))
        while self._coming and self._coming[0][0] <= batches[-1].label_at:
            if self._woken(self._coming[0][0]):
                continue
            self._now, _, _, happen = heappop(self._coming)
            happen()
        for at, _, _, happen in sorted(self._coming):
            self._now = at
            happen()

    def scores(self) -> tuple[BatchScore, ...]:
        """How every batch was served."""
        return tuple(self._score(batch) for batch in self._history.batches)

    def _score(self, batch: HistoryBatch) -> BatchScore:
        generation, loss, rows = self._served.get(batch.index, (0, None, batch.rows))
        return BatchScore(
            index=batch.index,
            key=batch.key,
            at=batch.at,
            label_at=batch.label_at,
            rows=rows,
            loss_sum=loss,
            generation=generation,
            drift_share=self._drift.get(batch.index),
        )

    # --- what happens ---

    def _at(self, at: datetime, order: int, happen: Callable[[], None]) -> None:
        heappush(self._coming, (at, order, next(self._order), happen))

    def _woken(self, until: datetime) -> bool:
        """Take the wake that a decision asked for, if it comes first; False where there is none."""
        if self._state.wake_at is None or self._state.wake_at > until:
            return False
        wake_at = self._state.wake_at
        self._now = wake_at if wake_at > self._now else self._now + _LEAST
        self._take(Woken(wake_at=wake_at, asked_by=decision_id(self._state.model, self._state.version)))
        return True

    def _serve(self, batch: HistoryBatch) -> None:
        champion, data = self._state.champion, self._policy.data
        if champion is None:
            return
        learned = self.learned[champion.generation]
        ((loss, rows),) = self._models.losses(learned, [batch.index])
        self._served[batch.index] = (champion.generation, loss, rows)
        if not data.predictions:
            return
        key = data.predictions.prefix + batch.key.removeprefix(data.prefix).rpartition(".")[0] + ".parquet"
        self._logs[key] = (champion.generation, batch.index)
        version = digest(f"{self._models.name(learned)} {batch.version}")[:32]
        # Its predictions are made when they are read, which may be never: their size is not known.
        self._take(ObjectCreated(bucket=data.bucket, key=key, version=version, size_bytes=0))

    def _arrive(self, batch: HistoryBatch) -> None:
        self._arrived += 1
        self._tell(f"{self._arrived} of {len(self._history)} batches, {len(self.retrainings)} retrainings")
        bucket = self._policy.data.bucket
        self._take(ObjectCreated(bucket=bucket, key=batch.key, version=batch.version, size_bytes=batch.size_bytes))
        if self._state.evidence:
            self._drift[batch.index] = self._state.evidence.drift_share
        waits = self._state.execution or any(m.kind is TriggerKind.MANUAL for m in self._state.kept)
        if self._arrived >= self._warmup and self._state.champion is None and not waits:
            why = "the first model, at the end of the warm-up"
            self._take(RetrainingRequested(request=f"backtest-{self._arrived}", by="backtest", why=why))

    def _take(self, event: Event) -> None:
        """Decide on it and on whatever answers what was decided, all at one moment."""
        waiting = deque([event])
        while waiting:
            decision = self._decided(waiting.popleft())
            for effect in decision.effects:
                waiting.extend(self._carried_out(effect))

    def _decided(self, event: Event) -> Decision:
        decision = decide(self._policy, self._state, event, self._now)
        before, self._hash, self._state = self._hash, digest(dump(decision.state)), decision.state
        fired = decision.state.execution if decision.reason is Reason.RETRAINING else None
        self.steps.append(
            Step(
                decision=decision.id,
                event_kind=type(event).__name__,
                identity=event.identity,
                event=digest(dump(event)),
                at=self._now,
                reason=decision.reason.value,
                detail=decision.detail,
                triggers=tuple(_called(m) for m in (fired.triggers if fired else decision.state.kept)),
                state_hash_before=before,
                state_hash_after=self._hash,
                effects=tuple(digest(dump(effect)) for effect in decision.effects),
            )
        )
        self._watch(event, self._now, decision)
        return decision

    # --- what answers effects ---

    def _carried_out(self, effect: Effect) -> Iterator[Event]:
        match effect:
            case MeasureEvidence():
                yield EvidenceMeasured(effect=effect.key, evidence=self._measuring.measure(effect))
            case StartExecution():
                yield self._started(effect)
            case PublishReport():
                yield EffectDone(effect=effect.key, kind=type(effect).__name__)
            case AnswerApproval():  # pragma: no cover - nobody is asked here
                raise AssertionError("an approval is answered that was never asked for")
            case _:  # pragma: no cover - mypy proves it
                assert_never(effect)

    def _logged(self, key: str) -> tuple[pa.Table, Predicted] | None:
        if key not in self._logs:
            return None
        generation, index = self._logs[key]
        return self._history.table(index), self._models.predicted(self.learned[generation], index)

    def _started(self, effect: StartExecution) -> Event:
        execution = self._state.execution
        assert execution
        learned = tuple(self._places[b.key] for b in execution.batches if b.key in self._places)
        self.learned[execution.generation] = learned
        self._holdout_shares[execution.generation] = json.loads(effect.input)["data"]["holdout_share"]
        self.retrainings.append(self._planned(execution, learned))
        place = len(self.retrainings) - 1
        self._at(self._now + self._takes, _ENDED, partial(self._end, execution, place))
        arn = effect.state_machine_arn.replace(":stateMachine:", ":execution:") + f":{effect.key}"
        return ExecutionStarted(execution=effect.key, arn=arn)

    def _planned(self, execution: Execution, learned: Indexes) -> Retraining:
        return Retraining(
            name=execution.name,
            generation=execution.generation,
            decision=execution.decision,
            first=self._state.champion is None or self._arrived < self._warmup,
            triggers=tuple(Fired(kind=m.kind, name=m.name, why=m.why, since=m.at) for m in execution.triggers),
            planned_at=execution.planned_at,
            started_at=self._now,
            ended_at=None,
            verdict=None,
            why="",
            batches=len(execution.batches),
            rows=sum(b.rows or 0 for b in execution.batches),
            through=max(learned, default=-1),
            cost=own_cost(self._policy, self._takes),
        )

    def _end(self, execution: Execution, place: int) -> None:
        ended = self._ended(execution)
        outcome = ended.outcome
        self.retrainings[place] = replace(
            self.retrainings[place],
            ended_at=self._now,
            verdict=outcome.verdict if outcome else None,
            why=outcome.why if outcome else ended.cause,
            challenger=outcome.challenger if outcome else None,
            champion=outcome.champion if outcome else None,
            holdout_rows=outcome.rows if outcome else None,
        )
        self._take(ended)

    def _ended(self, execution: Execution) -> ExecutionEnded:
        try:
            outcome = self._judged(self.learned[execution.generation], self._holdout_shares[execution.generation])
        except PermanentError as error:
            return ExecutionEnded(execution=execution.name, status=Status.FAILED, cause=str(error))
        return ExecutionEnded(execution=execution.name, status=Status.SUCCEEDED, outcome=outcome)

    def _judged(self, learned: Indexes, share: float) -> Outcome:
        """Train and judge, as the state machine does: both models on the newest rows of the manifest.

        What serves later has learned from those rows too where the policy says `refit`: see Models.
        """
        if not learned:
            raise PermanentError("the manifest lists no batch of the history")
        rule, champion = self._policy.gate, self._state.champion
        metrics, rows = self._models.on_holdout(learned, share)
        old = self._models.on_holdout(learned, share, self.learned[champion.generation])[0] if champion else None
        baselines = {name: self._models.baseline(name, learned, share) for name in rule.baselines}
        asked = gate.Rule(
            metric=rule.metric, min_gain=rule.min_gain, baselines=rule.baselines, confidence=rule.confidence
        )
        # To resample costs as much as to train a small model: only where the policy asks how sure a gain is.
        sure = self._compared(learned, share, champion.generation) if champion and rule.confidence is not None else None
        verdict = gate.judge(metrics, old, baselines, asked, sure)
        return Outcome(
            verdict=Verdict.PROMOTED if verdict.accepted else Verdict.REFUSED,
            why=verdict.reason,
            metric=rule.metric,
            challenger=metrics.get(rule.metric),
            champion=old.get(rule.metric) if old else None,
            metrics=metrics,
            cost=own_cost(self._policy, self._takes),
            rows=rows,
            comparison=sure,
            refit=True if verdict.accepted and self._policy.action.refit else None,
        )

    def _compared(self, learned: Indexes, share: float, champion: int) -> gate.Comparison | None:
        rule = self._policy.gate
        gains = self._models.gains(learned, share, self.learned[champion], rule.metric)
        if not gains:
            return None
        low, high = paired.interval(gains)
        return gate.compare(low, high, paired.better(gains), gains, rule.min_gain)


def _called(met: Met) -> str:
    edge = met.kind in (TriggerKind.SCHEDULE, TriggerKind.ALARM, TriggerKind.MANUAL)
    return f"{met.kind.value}:{met.name}" if edge else met.kind.value


def _fires(policy: Policy, after: datetime, until: datetime) -> Iterator[ScheduleFired]:
    for schedule in policy.triggers.schedules:
        begin = after
        while begin < until:
            end = min(begin + _FIRES, until)
            for fire_at in due(schedule, begin, end):
                yield ScheduleFired(schedule=schedule.name, fire_at=fire_at)
            begin = end
