"""What a measurement finds in the world of a case: what was told last, on the columns and thresholds of the policy."""

import math
from dataclasses import dataclass, field

from retrainer.cases.language import ColumnTold, Measured, MistakeError
from retrainer.cases.words import one_of
from retrainer.core.effects import MeasureEvidence
from retrainer.core.evidence import BatchLoss, ColumnDrift, Evidence, Performance
from retrainer.core.policy import Column, Policy
from retrainer.core.state import ModelState
from retrainer.core.window import Batch, Refusal, untried_rows

P_VALUES = frozenset({"ks", "chisquare"})
"""Tests whose score is a p-value: the less, the more drift."""
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
    )


def _counted(batch: Batch, told: Told) -> Batch:
    rows = batch.rows if batch.rows is not None else told.rows.get(batch.key, 1)
    return Batch(bucket=batch.bucket, key=batch.key, version=batch.version, size_bytes=batch.size_bytes, rows=rows)


def _share(policy: Policy, what: Measured) -> tuple[ColumnDrift, ...]:
    watched = _watched(policy, what)
    assert what.share is not None
    count = round(what.share * len(watched))
    if abs(count / len(watched) - what.share) > ROUNDING:
        shares = ", ".join(f"{n / len(watched):.2g}" for n in range(len(watched) + 1))
        said = f"of {len(watched)} watched columns the share that drifted is one of {shares}; write one of these"
        raise MistakeError(0, what.column, said)
    return tuple(_whole(name, column, drifted=n < count) for n, (name, column) in enumerate(watched.items()))


def _whole(name: str, column: Column, *, drifted: bool) -> ColumnDrift:
    """A column that has drifted without any doubt, or not at all."""
    threshold = column.threshold
    assert column.test
    assert threshold is not None
    still = 1.0 if column.test in P_VALUES else 0.0
    score = (0.0 if column.test in P_VALUES else 2 * threshold) if drifted else still
    p = 0.0 if drifted else 1.0
    return ColumnDrift(column=name, test=column.test, score=score, threshold=threshold, drifted=drifted, p_value=p)


def _columns(policy: Policy, what: Measured) -> tuple[ColumnDrift, ...]:
    watched = _watched(policy, what)
    given = {told.column: told for told in what.columns}
    for told in what.columns:
        if told.column not in watched:
            raise MistakeError(0, told.at, f"{told.column!r} is not watched for drift; {one_of(watched, told.column)}")
    return tuple(_column(name, column, given.get(name)) for name, column in watched.items())


def _column(name: str, column: Column, told: ColumnTold | None) -> ColumnDrift:
    if told is None:
        return _whole(name, column, drifted=False)
    assert column.test
    assert column.threshold is not None
    below = column.test in P_VALUES
    drifted = told.score < column.threshold if below else told.score >= column.threshold
    p = told.p if told.p is not None else (told.score if below else float(not drifted))
    return ColumnDrift(
        column=name, test=column.test, score=told.score, threshold=column.threshold, drifted=drifted, p_value=p
    )


def _watched(policy: Policy, what: Measured) -> dict[str, Column]:
    if watched := dict(policy.data.watched):
        return watched
    raise MistakeError(0, what.column, "the policy watches no column for drift; give one of data.columns a test")


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
