"""What asks for a retraining: pure functions from an event to the triggers it meets."""

from datetime import datetime

from retrainer.core.events import AlarmChanged, Event, EvidenceMeasured, RetrainingRequested, ScheduleFired
from retrainer.core.evidence import LOWER_IS_BETTER, Evidence, Performance, worse_by
from retrainer.core.execution import Champion, Met, TriggerKind
from retrainer.core.policy import DriftTrigger, PerformanceTrigger, Policy, VolumeTrigger
from retrainer.core.state import ModelState
from retrainer.core.window import Batch


def met(policy: Policy, state: ModelState, event: Event, now: datetime) -> tuple[Met, ...]:
    """The triggers of the policy that this event meets. `state` already holds what the event brought."""
    match event:
        case EvidenceMeasured():
            return _by_evidence(policy, state, event.evidence, now)
        case ScheduleFired():
            return (
                Met(
                    kind=TriggerKind.SCHEDULE,
                    name=event.schedule,
                    why=f"due at {event.fire_at:%Y-%m-%d %H:%M} UTC",
                    at=now,
                ),
            )
        case AlarmChanged() if event.state == "ALARM":
            return (Met(kind=TriggerKind.ALARM, name=event.alarm, why="went to ALARM", at=now),)
        case RetrainingRequested():
            return (Met(kind=TriggerKind.MANUAL, name=event.by, why=event.why, at=now),)
        case _:
            return ()


def merged(kept: tuple[Met, ...], new: tuple[Met, ...]) -> tuple[Met, ...]:
    """Kept and new triggers, one of each kind and name: the newest values, the first time."""
    by_name = {(m.kind, m.name): m for m in kept}
    for m in new:
        first = by_name.get((m.kind, m.name), m)
        by_name[m.kind, m.name] = Met(kind=m.kind, name=m.name, why=m.why, at=first.at)
    return tuple(by_name.values())


def _by_evidence(policy: Policy, state: ModelState, evidence: Evidence, now: datetime) -> tuple[Met, ...]:
    wanted = policy.triggers
    found = (
        wanted.drift and _drift(wanted.drift, evidence, now),
        wanted.performance and _performance(wanted.performance, evidence.performance, state.champion, now),
        wanted.volume and _volume(wanted.volume, state.window, now),
    )
    return tuple(m for m in found if m)


def _drift(wanted: DriftTrigger, evidence: Evidence, now: datetime) -> Met | None:
    if evidence.rows < wanted.rows_min or evidence.drift_share < wanted.share:
        return None
    columns = ", ".join(f"{c.column} {c.test} {c.score:.3g}" for c in evidence.drift if c.drifted)
    why = f"drift share {evidence.drift_share:.2f} >= {wanted.share:g} ({columns})"
    return Met(kind=TriggerKind.DRIFT, name="drift", why=why, at=now)


def _performance(
    wanted: PerformanceTrigger, seen: Performance | None, champion: Champion | None, now: datetime
) -> Met | None:
    if seen is None or seen.labels < wanted.labels_min:
        return None
    baseline = champion.baseline if champion else None
    said: list[str] = []
    if wanted.drop is not None and baseline is not None and baseline.metric == seen.metric:
        worse = worse_by(seen.metric, seen.value, baseline.value)
        if worse >= wanted.drop:
            by = f"{worse:.0%} worse than {baseline.value:.4f}, limit {wanted.drop:.0%}"
            said.append(f"{seen.metric} {seen.value:.4f} is {by}")
    if wanted.limit is not None:
        past = seen.value > wanted.limit if seen.metric in LOWER_IS_BETTER else seen.value < wanted.limit
        if past:
            said.append(f"{seen.metric} {seen.value:.4f} is past the limit {wanted.limit:g}")
    if not said:
        return None
    return Met(kind=TriggerKind.PERFORMANCE, name=seen.metric, why="; ".join(said), at=now)


def _volume(wanted: VolumeTrigger, window: tuple[Batch, ...], now: datetime) -> Met | None:
    rows = sum(b.rows or 0 for b in window)
    if rows < wanted.rows:
        return None
    return Met(kind=TriggerKind.VOLUME, name="volume", why=f"{rows} new rows >= {wanted.rows}", at=now)
