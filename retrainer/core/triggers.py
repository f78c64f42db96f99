"""What asks for a retraining: pure functions from a measurement or another event to the triggers it meets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from retrainer.core import concept, costs, regret
from retrainer.core.events import AlarmChanged, Event, RetrainingRequested, ScheduleFired
from retrainer.core.evidence import LOWER_IS_BETTER, ColumnDrift, Evidence, Performance, worse_by
from retrainer.core.evidence import share as share_of
from retrainer.core.execution import Champion, Met, TriggerKind
from retrainer.core.policy import ConceptTrigger, Correction, DriftTrigger, PerformanceTrigger, Policy, Schedule
from retrainer.core.state import ModelState

YEAR: Final = timedelta(days=365)
SPENT_AT_ONCE: Final = timedelta(days=1)
"""After a longer silence no more than a day's worth of false alarms is spent on one measurement, and on the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A trigger as one measurement has it: its value and its threshold in words, and whether it is met.

    `why` is what a decision says of it; `aside` is what is worth telling although it is not met.
    """

    kind: TriggerKind
    met: bool
    value: str
    threshold: str
    why: str = ""
    aside: str = ""


def readings(policy: Policy, state: ModelState, now: datetime) -> tuple[Reading, ...]:
    """The declared triggers that are read off a measurement; `state` already holds it, and the levels before it."""
    evidence = state.evidence
    if evidence is None:
        return ()
    return tuple(_readings(policy, state, evidence, now))


def edge(policy: Policy, state: ModelState, event: Event, now: datetime) -> tuple[Met | None, str]:
    """The schedule, alarm or request by hand that this event is; else None, and why a schedule is skipped."""
    match event:
        case ScheduleFired():
            declared = next((s for s in policy.triggers.schedules if s.name == event.schedule), None)
            if declared and (fresh := _fresh(declared, state.champion, now)):
                return None, f"{event.schedule} is skipped, {fresh}"
            why = f"due at {event.fire_at:%Y-%m-%d %H:%M} UTC"
            return Met(kind=TriggerKind.SCHEDULE, name=event.schedule, why=why, at=now), ""
        case AlarmChanged() if event.state == "ALARM":
            return Met(kind=TriggerKind.ALARM, name=event.alarm, why="went to ALARM", at=now), ""
        case RetrainingRequested():
            return Met(kind=TriggerKind.MANUAL, name=event.by, why=event.why, at=now), ""
        case _:
            return None, ""


def merged(kept: tuple[Met, ...], new: tuple[Met, ...]) -> tuple[Met, ...]:
    """Kept and new triggers, one of each kind and name: the newest values, the first time."""
    by_name = {(m.kind, m.name): m for m in kept}
    for m in new:
        first = by_name.get((m.kind, m.name), m)
        by_name[m.kind, m.name] = Met(kind=m.kind, name=m.name, why=m.why, at=first.at)
    return tuple(by_name.values())


def level(policy: Policy, kind: TriggerKind, why: str, now: datetime) -> Met:
    """A trigger read off a measurement as it is kept; that of performance goes by the name of its metric."""
    logged = policy.data.predictions
    name = logged.metric if logged and kind is TriggerKind.PERFORMANCE else kind.value
    return Met(kind=kind, name=name, why=why, at=now)


def spends_false_alarms(policy: Policy, evidence: Evidence) -> bool:
    """Whether drift is judged on this measurement against the budget of false alarms."""
    wanted = policy.triggers.drift
    return bool(wanted and wanted.false_alarms_per_year and evidence.drift and evidence.rows >= wanted.rows_min)


def _readings(policy: Policy, state: ModelState, evidence: Evidence, now: datetime) -> Iterator[Reading]:
    wanted = policy.triggers
    if wanted.drift:
        yield _drift(wanted.drift, state, evidence, now)
    if wanted.performance:
        yield _performance(wanted.performance, state, evidence)
    if wanted.regret:
        yield _regret(policy, wanted.regret.labels_min, state)
    if wanted.concept:
        yield _concept(wanted.concept, state)
    if wanted.volume:
        rows = sum(b.rows or 0 for b in state.window)
        why = f"{rows} new rows >= {wanted.volume.rows}"
        met = rows >= wanted.volume.rows
        value, threshold = f"{rows} new rows", str(wanted.volume.rows)
        yield Reading(kind=TriggerKind.VOLUME, met=met, value=value, threshold=threshold, why=why)


def _was_on(state: ModelState, kind: TriggerKind) -> bool:
    return any(level.on for level in state.levels if level.name == kind)


def _fresh(declared: Schedule, champion: Champion | None, now: datetime) -> str:
    if declared.unless_fresh is None or champion is None or now - champion.promoted_at >= declared.unless_fresh:
        return ""
    return f"the champion was promoted at {champion.promoted_at:%Y-%m-%d %H:%M} UTC"


# --- drift ---


def _drift(wanted: DriftTrigger, state: ModelState, evidence: Evidence, now: datetime) -> Reading:
    """Enough columns have changed by as much as their tests ask for, and with the certainty that is asked for."""
    chance = _chance(wanted, state.drift_checked_at, now)
    drifted = [c for c in evidence.drift if c.drifted]
    counted = drifted if chance is None else _certain(evidence.drift, chance, wanted.correction)
    share = share_of(evidence.drift, counted)
    on = wanted.clear is not None and _was_on(state, TriggerKind.DRIFT)
    least = wanted.clear if on else wanted.share
    met = evidence.rows >= wanted.rows_min and bool(counted) and (least is None or share >= least)
    columns = ", ".join(_column(c, chance) for c in counted)
    value = f"drift share {share:.2f} ({columns})" if counted else f"drift share {share:.2f}"
    compared = ">= " + (f"{least:g}" if least is not None else "one column")
    how = "" if wanted.correction == "holm" else f" ({wanted.correction})"
    certainly = "" if chance is None else f", p <= {chance:.2g} over all columns{how}"
    aside = ""
    if not met and chance is not None and len(drifted) > len(counted):
        unsure = ", ".join(_column(c, chance) for c in drifted if c not in counted)
        aside = f"may be chance at {chance:.2g}: {unsure}"
    return Reading(
        kind=TriggerKind.DRIFT,
        met=met,
        value=f"{value} on {evidence.rows} rows" + (f", {aside}" if aside else ""),
        threshold=f"{compared}{certainly}, on {wanted.rows_min} rows",
        why=f"drift share {share:.2f} {compared} ({columns}){certainly}",
        aside=aside,
    )


def _column(column: ColumnDrift, chance: float | None) -> str:
    certainty = "" if chance is None else f" p {column.p_value:.2g}" if column.p_value is not None else " p unknown"
    return f"{column.column} {column.test} {column.score:.3g}{certainty}"


def _chance(wanted: DriftTrigger, checked_at: datetime | None, now: datetime) -> float | None:
    """How likely a false alarm may be at this measurement: the year's budget by the time since the last one.

    The chances of all measurements of a year add up to the budget at most, and so does, by the union bound, the
    chance that any of them is a false alarm, however they depend on one another.
    """
    if wanted.false_alarms_per_year is None:
        return None
    waited = min(now - checked_at, SPENT_AT_ONCE) if checked_at else SPENT_AT_ONCE
    return max(0.0, wanted.false_alarms_per_year * (waited / YEAR))


def _certain(columns: Sequence[ColumnDrift], chance: float, correction: Correction) -> list[ColumnDrift]:
    """The drifted columns whose p-value holds over all columns measured.

    Where nothing has changed, each finds a column with the probability `chance` at most, and so the year's budget
    holds; bh does for columns that are independent or move together (positive regression dependence), the others
    however they depend on one another. Where some have changed, holm (Holm 1979, Scand. J. Statist. 6:65) bounds the
    chance that any unchanged column is found; bh (Benjamini and Hochberg 1995, J. R. Stat. Soc. B 57:289) and by
    (Benjamini and Yekutieli 2001, Ann. Stat. 29:1165) the expected share of unchanged columns among those found.
    """
    tested = sorted((c for c in columns if c.p_value is not None), key=_p_value)
    least = [_p_value(c) <= bound for c, bound in zip(tested, _bounds(len(tested), chance, correction), strict=True)]
    if correction == "holm":
        found = least.index(False) if False in least else len(least)
    else:
        found = max((rank for rank, held in enumerate(least, 1) if held), default=0)
    names = {c.column for c in tested[:found]}
    return [c for c in columns if c.drifted and c.column in names]


def _bounds(count: int, chance: float, correction: Correction) -> list[float]:
    """What the p-values are compared with, the smallest first."""
    if correction == "holm":
        return [chance / (count - rank) for rank in range(count)]
    dependence = sum(1 / n for n in range(1, count + 1)) if correction == "by" else 1.0
    return [chance * rank / (count * dependence) for rank in range(1, count + 1)]


def _p_value(column: ColumnDrift) -> float:
    return 1.0 if column.p_value is None else column.p_value


# --- performance, regret and concept ---


def _performance(wanted: PerformanceTrigger, state: ModelState, evidence: Evidence) -> Reading:
    seen, how = judged(wanted, evidence)
    drop = wanted.clear if wanted.clear is not None and _was_on(state, TriggerKind.PERFORMANCE) else wanted.drop
    limits = [f"{drop:.0%} worse than the baseline"] if drop is not None else []
    limits += [f"past {wanted.limit:g}"] if wanted.limit is not None else []
    threshold = f"{' or '.join(limits)}, on {wanted.labels_min} labels"
    if seen is None:
        few = evidence.performance.labels if evidence.performance else 0
        return Reading(kind=TriggerKind.PERFORMANCE, met=False, value=f"{few} labels", threshold=threshold)
    said = [*_dropped(drop, state, seen, how), *_past(wanted, seen, how)]
    value = f"{how}{seen.metric} {seen.value:.4f} on {seen.labels} {'predictions' if how else 'labels'}"
    return Reading(
        kind=TriggerKind.PERFORMANCE,
        met=bool(said),
        value=value,
        threshold=threshold,
        why="; ".join(said),
        aside=value if how and not said else "",
    )


def judged(wanted: PerformanceTrigger, evidence: Evidence) -> tuple[Performance | None, str]:
    """What performance is judged by: the figure on labels, else, if the policy wants that, the estimate, said so."""
    if evidence.performance and evidence.performance.labels >= wanted.labels_min:
        return evidence.performance, ""
    if wanted.estimated and evidence.estimated and evidence.estimated.labels >= wanted.labels_min:
        return evidence.estimated, "estimated "
    return None, ""


def _dropped(drop: float | None, state: ModelState, seen: Performance, how: str) -> Iterator[str]:
    baseline = state.champion.baseline if state.champion else None
    if drop is None or baseline is None or baseline.metric != seen.metric:
        return
    worse = worse_by(seen.metric, seen.value, baseline.value)
    if worse >= drop:
        by = f"{worse:.0%} worse than {baseline.value:.4f}, limit {drop:.0%}"
        yield f"{how}{seen.metric} {seen.value:.4f} is {by}"


def _past(wanted: PerformanceTrigger, seen: Performance, how: str) -> Iterator[str]:
    if wanted.limit is None:
        return
    past = seen.value > wanted.limit if seen.metric in LOWER_IS_BETTER else seen.value < wanted.limit
    if past:
        yield f"{how}{seen.metric} {seen.value:.4f} is past the limit {wanted.limit:g}"


def _regret(policy: Policy, labels_min: int, state: ModelState) -> Reading:
    price = costs.price(policy, state)
    labels = sum(loss.labels for loss in state.losses)
    if price is None:
        value = "no price is known yet"
        return Reading(
            kind=TriggerKind.REGRET,
            met=False,
            value=value,
            threshold="the price of a retraining",
            aside=f"regret: {value}",
        )
    found = regret.judge(state.losses, state.cycles, price, policy.gate.metric)
    met = found.due and labels >= labels_min
    return Reading(
        kind=TriggerKind.REGRET,
        met=met,
        value=f"avoidable loss {found.avoidable:.4g} on {labels} labels",
        threshold=f"{price:.4g}, on {labels_min} labels",
        why=found.why,
        aside="" if met else f"regret: {found.why}",
    )


def _concept(wanted: ConceptTrigger, state: ModelState) -> Reading:
    found = concept.judge(
        state.losses, margin=wanted.margin, labels_min=wanted.labels_min, false_alarms=wanted.false_alarms
    )
    labels = sum(loss.labels for loss in state.losses)
    return Reading(
        kind=TriggerKind.CONCEPT,
        met=found.due,
        value=f"{found.value:.4g} on {labels} labels",
        threshold=f"{found.threshold:.4g}, after {wanted.labels_min} labels",
        why=found.why,
        aside="" if found.due else f"concept: {found.why}",
    )
