"""When all has come to rest: whether it has, and what must then hold."""

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from retrainer import replay
from retrainer.core.decide import decide
from retrainer.core.events import ExecutionEnded, ScheduleFired
from retrainer.core.fleet import ALONE
from retrainer.core.policy import Schedule
from retrainer.core.reason import Reason
from retrainer.core.record import digest, dump
from retrainer.core.state import ModelState
from tests.simulation.calendar import fires, schedule_of
from tests.simulation.clockwork import peek
from tests.simulation.history import MODELS
from tests.simulation.policies import by_hash

if TYPE_CHECKING:
    from tests.simulation.world import World

LATE = timedelta(minutes=2)
"""How much later than its clock says a decision may come: calls that wait, commits that are tried again."""


def at_rest(world: "World") -> str:
    """What is still on its way; empty when nothing is."""
    owed = peek(world.ledger.counts())["effects_owed"]
    found = [f"{owed} effects owed"] if owed else []
    if world.queue.held:
        found.append(f"on the queue: {', '.join(world.queue.held)}")
    if walking := [w.name for w in world.engine.walks.values() if w.runs]:
        found.append(f"running: {', '.join(walking)}")
    if world.asked_open:
        found.append(f"{world.asked_open} people wait for an answer")
    for model in MODELS:
        state = world.state(model)
        if state.execution:
            found.append(f"{model} waits for {state.execution.name}, {state.execution.status}")
        if state.kept and not _held_back(world, model, state):
            found.append(f"{model} keeps {', '.join(m.kind for m in state.kept)} for no reason")
        if state.measuring:
            found.append(f"{model} waits for {state.measuring}")
        if state.wake_at and state.wake_at < world.now() + timedelta(minutes=3):
            found.append(f"{model} is to be woken at {state.wake_at}")
    return "; ".join(found)


def _held_back(world: "World", model: str, state: ModelState) -> bool:
    """Whether a guard has a reason, told by other means than the guards."""
    policy, _ = world.policies()[model]
    now, guards = world.now() - LATE - timedelta(seconds=world.history.faults.skew_seconds), policy.guards
    rows = sum(b.rows or 0 for b in state.window if not b.tried)
    spent = [s for s in state.starts if guards.budget and s > now - guards.budget.period]
    cools = state.ended_at is not None and state.attempt == 0 and now < state.ended_at + guards.cooldown
    over = bool(guards.budget and guards.budget.executions and len(spent) >= guards.budget.executions)
    return bool(state.pause or state.execution or cools or over or rows < guards.rows_min)


def check(world: "World") -> None:
    """Everything that must hold at the end."""
    _decided_once(world)
    _refused_and_kept(world)
    _ends_are_known(world)
    _replayed(world)
    _fired(world)


def _decided_once(world: "World") -> None:
    recorded = peek(world.ledger.decisions(None, limit=100_000))
    counted = Counter((d.model, d.event_identity) for d in recorded)
    for model, identity in world.expected:
        if (model, identity) not in counted:
            world.violate("no trigger lost", f"{model} {identity}")
    for (model, identity), number in counted.items():
        if number > 1:
            world.violate("no decision twice", f"{model} {identity} {number} times")
    for model in MODELS:
        versions = sorted(int(d.id.rpartition("-")[2]) for d in recorded if d.model == model)
        if versions != list(range(1, len(versions) + 1)):
            world.violate("versions gapless", f"{model}: {versions}")
    for key, kind, status in (effect for d in recorded for effect in d.effects):
        if status == "owed":
            world.violate("nothing owed", key)
        if status == "done" and not world.was_done(kind, key):
            world.violate("done is done", f"{kind} {key} is said to be, and never was")


def _refused_and_kept(world: "World") -> None:
    dead = {name: (body, why) for name, body, why in world.queue.dead}
    for name, body in world.refusable.items():
        if dead.get(name, ("", ""))[0] != body:
            world.violate("refused means kept", f"{name} is not on the dead-letter queue as it came")
    for name, (_, why) in dead.items():
        if name not in world.refusable:
            world.violate("dead letters are refused ones", f"{name}: {why}")
    kept = peek(world.ledger.counts())["quarantine"]
    if kept != len(world.refusable):
        world.violate("refused means kept", f"{kept} of {len(world.refusable)} messages in quarantine")


def _ends_are_known(world: "World") -> None:
    """Every execution that AWS has is in one decision that started it and one that saw its end."""
    for walk in world.engine.walks.values():
        if world.history.is_calm and walk.end and walk.end.cause == "no heartbeat":
            world.violate("questions stay open", f"{walk.name} gave up asking")
        entries = world.watch.entries[walk.model]
        ends = [e for e in entries if isinstance(e.event, ExecutionEnded) and e.event.execution == walk.name]
        taken = [e for e in ends if e.decision.reason is not Reason.STALE]
        if len(taken) != 1:
            world.violate("ends are seen", f"{walk.name}: {[str(e.decision.reason) for e in ends]}")
        elif walk.end and taken[0].event != walk.end:
            world.violate("ends are seen", f"{walk.name}: {taken[0].event}")
    for model in MODELS:
        champion = world.state(model).champion
        has_ghosts = any(w.is_ghost for w in world.engine.walks.values() if w.model == model)
        if not has_ghosts and world.engine.champion(model) != (champion.generation if champion else 0):
            world.violate("champions agree", f"{model}: {champion} and {world.engine.champion(model)}")


def _replayed(world: "World") -> None:
    """Every recorded decision follows from the one before by `decide`."""
    recorded = {d.id: d for d in peek(world.ledger.decisions(None, limit=100_000))}
    for model, entries in world.watch.entries.items():
        state = ModelState(model=model)
        for entry in entries:
            fleet = entry.fleet or ALONE
            decision = decide(by_hash()[entry.policy_hash], state, entry.event, entry.now, fleet)
            row = recorded.get(decision.id)
            if decision != entry.decision or row is None or row.event_identity != entry.event.identity:
                world.violate("decisions are replayed", f"{decision.id} {entry.event.identity}")
                return
            state = decision.state
        if entries and recorded[entries[-1].decision.id].state_hash_after != digest(dump(world.state(model))):
            world.violate("decisions are replayed", f"{model}: the state is not the last decision's")
        for replayed in peek(_again(world, model)):
            if replayed.cannot or replayed.differences:
                said = replayed.cannot or ", ".join(d.what for d in replayed.differences)
                world.violate("decisions are replayed", f"{replayed.original.id}: {said}")


async def _again(world: "World", model: str) -> list[replay.Replayed]:
    """As `retrainer replay` does it, with nothing but the ledger."""
    return [replayed async for replayed in replay.walk(world.ledger, model)]


def _fired(world: "World") -> None:
    """Fires are taken once each, in time; one passed over was followed by a later one, or came too late."""
    for model, entries in world.watch.entries.items():
        for entry in entries:
            event = entry.event
            if not isinstance(event, ScheduleFired):
                continue
            _in_time(world, entry.now - event.fire_at, schedule_of(model, event.schedule), event)


def _in_time(world: "World", late: timedelta, schedule: Schedule, event: ScheduleFired) -> None:
    due = fires(schedule.cron, schedule.time_zone, world.history.start)
    if event.fire_at not in due:
        world.violate("fires are due", f"{schedule.name} {event.fire_at}")
    if late > schedule.misfire_grace + LATE:
        world.violate("fires in time", f"{schedule.name} {event.fire_at} taken {late} later")
    end = world.history.start + timedelta(seconds=world.history.quiet_at)
    later = [f for f in due if event.fire_at < f <= end]
    if later and late > later[0] - event.fire_at + LATE:
        world.violate("fires are merged", f"{schedule.name} {event.fire_at} taken {late} later")
