"""What a measurement finds in the world of a case: what was told last, on the columns and thresholds of the policy."""

import math
from dataclasses import dataclass, field

from retrainer.cases.language import ColumnTold, Measured, MistakeError, UnusableTold
from retrainer.cases.words import one_of
from retrainer.core.effects import MeasureEvidence
from retrainer.core.evidence import (
    ALL_COLUMNS,
    PREDICTIONS,
    BatchLoss,
    ColumnDrift,
    Evidence,
    Performance,
    Unusable,
)
from retrainer.core.policy import P_VALUES, Column, Policy
from retrainer.core.state import ModelState
from retrainer.core.window import Batch, Refusal, untried_rows

ROUNDING = 0.006
"""0.33 stands for a third."""


@dataclass(slots=True, kw_only=True)
class Told:
    """What the case has said of the windows so far; rows by the key of their batch."""

    rows: dict[str, int] = field(default_factory=dict)
    drift: tuple[ColumnDrift, ...] = ()
    performance: Performance | None = None
    estimated: Performance | None = None
    losses: dict[str, BatchLoss] = field(default_factory=dict)
    refused: str | None = None
    unusable: tuple[Unusable, ...] = ()

    def hear(self, policy: Policy, what: Measured) -> None:
        """Takes in what is measured at a step, but for the batch that is yet to arrive. Raises MistakeError."""
        if what.share is not None:
            self.drift = _share(policy, what)
        elif what.columns:
            self.drift = _columns(policy, what)
        if what.performance:
            self.performance = _performed(policy, what, *what.performance)
        if what.estimated:
            self.estimated = _performed(policy, what, *what.estimated)
        self.refused = what.refused
        self.unusable = tuple(_unusable(policy, told) for told in what.unusable)

    def count(self, policy: Policy, state: ModelState, asked: MeasureEvidence, what: Measured) -> None:
        """The rows, and the loss, of the batch that has just arrived. Raises MistakeError."""
        if self.drift and state.champion is None and policy.windows.reference.of == "training":
            said = "there is no champion whose data this could have drifted from; begin with champion promoted"
            raise MistakeError(0, what.column, said)
        new = asked.current[-1]
        seen = sum(self.rows.get(b.key, b.rows or 0) for b in asked.current)
        wanted = policy.triggers.drift.rows_min if policy.triggers.drift else 0
        missing = max(1, wanted - seen, policy.guards.rows_min - untried_rows(state.window))
        self.rows[new.key] = missing if what.rows is None else what.rows
        if what.loss:
            if not policy.data.predictions:
                raise MistakeError(0, what.column, "the policy has no data.predictions, so there is no loss to measure")
            mean, labels, variance = what.loss
            spread = variance if variance is not None else _spread(policy, mean)
            self.losses[new.key] = BatchLoss(
                key=new.key, version=new.version, labels=labels, mean=mean, variance=spread
            )


def evidence(policy: Policy, asked: MeasureEvidence, told: Told) -> Evidence:
    """The answer to a measurement."""
    newest = asked.current[-1]
    bad = {newest.key} if told.refused else set()
    good = tuple(_counted(b, told) for b in asked.current if b.key not in bad)
    refused = tuple(
        Refusal(bucket=b.bucket, key=b.key, version=b.version, why=told.refused or "")
        for b in asked.current
        if b.key in bad
    )
    return Evidence(
        rows=sum(b.rows or 0 for b in good),
        reference_rows=sum(b.rows or 0 for b in asked.reference),
        batches=good,
        refused=refused,
        drift=told.drift,
        performance=told.performance,
        estimated=told.estimated,
        losses=tuple(told.losses[b.key] for b in good if b.key in told.losses),
        unusable=told.unusable,
    )


def _counted(batch: Batch, told: Told) -> Batch:
    rows = batch.rows if batch.rows is not None else told.rows.get(batch.key, 1)
    return Batch(bucket=batch.bucket, key=batch.key, version=batch.version, size_bytes=batch.size_bytes, rows=rows)


def _share(policy: Policy, what: Measured) -> tuple[ColumnDrift, ...]:
    watched = _watched(policy, what)
    single = [w for w in watched.values() if w.name != ALL_COLUMNS]
    assert what.share is not None
    count = round(what.share * len(single))
    if abs(count / len(single) - what.share) > ROUNDING:
        shares = ", ".join(f"{n / len(single):.2g}" for n in range(len(single) + 1))
        said = f"of {len(single)} watched columns the share that drifted is one of {shares}; write one of these"
        raise MistakeError(0, what.column, said)
    return tuple(w.whole(drifted=n < count) for n, w in enumerate(watched.values()))


def _columns(policy: Policy, what: Measured) -> tuple[ColumnDrift, ...]:
    watched = _watched(policy, what)
    given = {told.column: told for told in what.columns}
    for told in what.columns:
        if told.column not in watched:
            raise MistakeError(0, told.at, f"{told.column!r} is not watched for drift; {one_of(watched, told.column)}")
    return tuple(w.told(given[name]) if name in given else w.whole(drifted=False) for name, w in watched.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """A column that is watched: its name in evidence, its test and its threshold; `still`: the score of no drift."""

    name: str
    test: str
    threshold: float
    still: float = 0.0

    def whole(self, *, drifted: bool) -> ColumnDrift:
        """It has drifted without any doubt, or not at all."""
        farthest = 0.0 if self.test in P_VALUES else 2 * self.threshold
        return self._measured(farthest if drifted else self.still, 1.0 - drifted)

    def told(self, told: ColumnTold) -> ColumnDrift:
        """It has drifted as far as the case tells."""
        if told.p is not None:
            return self._measured(told.score, told.p)
        return self._measured(told.score, told.score if self.test in P_VALUES else float(told.score < self.threshold))

    def _measured(self, score: float, p: float) -> ColumnDrift:
        drifted = score < self.threshold if self.test in P_VALUES else score >= self.threshold
        return ColumnDrift(
            column=self.name, test=self.test, score=score, threshold=self.threshold, drifted=drifted, p_value=p
        )


def _watched(policy: Policy, what: Measured) -> dict[str, _Watched]:
    """What is watched, by the name that a case calls it; all columns together, as the classifier, are the last."""
    found = {name: _of(name, column) for name, column in policy.data.measured.items()}
    if policy.data.predictions and (column := policy.data.predictions.watched):
        found.setdefault("predictions", _of(PREDICTIONS, column))
    if not found:
        raise MistakeError(0, what.column, "the policy watches no column for drift; give one of data.columns a test")
    if policy.triggers.drift and (threshold := policy.triggers.drift.classifier):
        together = _Watched(name=ALL_COLUMNS, test="classifier", threshold=threshold, still=0.5)
        found.setdefault("classifier", together)
    return found


def _of(name: str, column: Column) -> _Watched:
    assert column.test
    assert column.threshold is not None
    still = 1.0 if column.test in P_VALUES else 0.0
    return _Watched(name=name, test=column.test, threshold=column.threshold, still=still)


def _unusable(policy: Policy, told: UnusableTold) -> Unusable:
    known = [*policy.data.columns, policy.data.timestamp]
    if told.column not in known:
        raise MistakeError(0, told.at, f"{told.column!r} is no column of the policy; {one_of(known, told.column)}")
    return Unusable(column=told.column, why=told.why)


def _performed(policy: Policy, what: Measured, value: float, labels: int | None) -> Performance:
    if not policy.data.predictions:
        raise MistakeError(0, what.column, "the policy has no data.predictions, so there is no performance to measure")
    wanted = policy.triggers.performance
    enough = wanted.labels_min if wanted else 1
    return Performance(metric=policy.data.predictions.metric, value=value, labels=enough if labels is None else labels)


def _spread(policy: Policy, mean: float) -> float:
    """Of losses that are 0 or 1 the mean tells the variance; of others as much as the mean is assumed."""
    assert policy.data.predictions
    if policy.data.predictions.metric in ("accuracy", "hit_rate_at_10") and 0 <= mean <= 1:
        return mean * (1 - mean)
    return math.pow(mean, 2)
