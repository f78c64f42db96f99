"""Runs a readable timeline through `decide`: a line an event, under it what was decided and what is to be done.

2026-01-01 00:00 object a rows later
-> measuring: s3://b/data/m/a.parquet arrived; evidence asked on 1 batches
   MeasureEvidence m-1.measure reference=0 current=1

`policy` lines set up the policy, `repolicy` changes it, `fleet` says what other models do from then on, and `tree`
shows all that the last decision looked at.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from retrainer.core import record
from retrainer.core.decide import Decision, decide
from retrainer.core.effects import AnswerApproval, Effect, MeasureEvidence, PublishReport, StartExecution
from retrainer.core.events import Event
from retrainer.core.fleet import ALONE, Fleet, Running, Start
from retrainer.core.policy import Policy
from retrainer.core.reason import Reason
from retrainer.core.rules import Node, tree
from retrainer.core.state import ModelState
from retrainer.core.window import Batch
from tests.core.event_lines import read_event

POLICY: dict[str, Any] = {
    "model": "m",
    "data": {
        "bucket": "b",
        "prefix": "data/m/",
        "timestamp": "at",
        "columns": {
            "x": {"kind": "numerical", "test": "wasserstein", "threshold": 0.1},
            "y": {"kind": "categorical", "test": "psi", "threshold": 0.1},
        },
        "predictions": {
            "prefix": "predictions/m/",
            "key": "id",
            "prediction": "p",
            "label": "y",
            "metric": "accuracy",
        },
    },
    "triggers": {
        "drift": {"share": 0.5, "rows_min": 100, "false_alarms_per_year": None},
        "performance": {"drop": 0.1, "labels_min": 50},
    },
    "guards": {"cooldown": "6h", "rows_min": 100},
    "action": {
        "state_machine": "arn:aws:states:us-east-1:123456789012:stateMachine:retraining",
        "candidates": [{"name": "a", "hyperparameters": {"epochs": 3}}],
    },
    "gate": {"metric": "accuracy"},
}


def policy_with(*settings: str) -> Policy:
    """The policy above with lines like `guards.cooldown = 1h` applied; the value is JSON where it can be."""
    raw = json.loads(json.dumps(POLICY))
    for line in settings:
        path, _, text = (part.strip() for part in line.partition("="))
        *parents, last = path.split(".")
        place = raw
        for name in parents:
            place = place.setdefault(name, {})
        try:
            place[last] = json.loads(text)
        except json.JSONDecodeError:
            place[last] = text
    return Policy.model_validate(raw)


def run(text: str) -> str:
    """The transcript with its answers recomputed; comments, settings and blank lines stay as they are."""
    lines = [line for line in text.splitlines() if not line.startswith(("->", "   "))]
    first = [line.removeprefix("policy ") for line in lines if line.startswith("policy ")]
    policy, fleet = policy_with(*first), ALONE
    state = ModelState(model=policy.model)
    looked: tuple[str, ...] = ()
    asked: dict[str, tuple[Batch, ...]] = {}
    told: list[str] = []
    for line in lines:
        told.append(line)
        if line == "tree":
            told.extend(looked)
        if not line or line.startswith(("#", "policy ", "tree")):
            continue
        now = datetime.strptime(line[:16], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
        kind, _, said = line[17:].partition(" ")
        if kind == "repolicy":
            policy = policy_with(*first, said)
        elif kind == "fleet":
            fleet = read_fleet(said, now)
        else:
            event = read_event(line[17:], state, now, asked)
            decision = decide(policy, state, event, now, fleet)
            looked = tuple(check(policy, state, event, now, decision, fleet))
            state = decision.state
            asked |= {e.key: e.current for e in decision.effects if isinstance(e, MeasureEvidence)}
            told.extend(tell(decision))
    return "\n".join(told) + "\n"


def read_fleet(said: str, now: datetime) -> Fleet:
    """`running=a,b waiting=c started=d:3.5,e` of other models; what started did so now, and cost that much."""
    given = {key: value.split(",") for key, _, value in (word.partition("=") for word in said.split())}
    started = (each.partition(":") for each in given.get("started", ()))
    return Fleet(
        running=tuple(Running(model=name, since=now) for name in given.get("running", ())),
        waiting=tuple(given.get("waiting", ())),
        starts=tuple(Start(model=name, at=now, cost=float(cost) if cost else None) for name, _, cost in started),
    )


def check(
    policy: Policy, state: ModelState, event: Event, now: datetime, decision: Decision, fleet: Fleet = ALONE
) -> Iterator[str]:
    """What holds for every decision: it is repeatable, recordable and explained by its tree, which is returned.

    Its version and its wake-up move forward.
    """
    assert decide(policy, state, event, now, fleet) == decision
    assert record.load_state(record.dump(decision.state)) == decision.state
    assert record.load_event(type(event).__name__, record.dump(event)) == event
    assert record.load_fleet(record.dump(fleet)) == fleet
    for effect in decision.effects:
        assert record.load_effect(type(effect).__name__, record.dump(effect)) == effect
    assert decision.state.version == state.version + 1
    assert decision.id == f"{state.model}-{decision.state.version}"
    assert decision.state.generation >= state.generation
    assert decision.state.wake_at is None or decision.state.wake_at > now
    assert len({e.key for e in decision.effects}) == len(decision.effects)
    made = tree(policy, state, event, now, fleet)
    lets_go = all(guard.met for guard in made.guards)
    assert not decision.state.kept or made.triggers.met
    assert (decision.reason is Reason.RETRAINING) <= (bool(made.triggers.met) and lets_go)
    return (line for node in (made.triggers, *made.guards) for line in tell_node(node, "   "))


def tell_node(node: Node, indent: str) -> Iterator[str]:
    met = {True: "yes", False: "no", None: "-"}[node.met]
    yield f"{indent}{met} {node.name}: {node.value} ({node.threshold})"
    for child in node.children:
        yield from tell_node(child, f"{indent}  ")


def tell(decision: Decision) -> Iterator[str]:
    yield f"-> {decision.reason}: {decision.detail}".rstrip()
    for effect in decision.effects:
        yield f"   {tell_effect(effect)}"
    if decision.state.wake_at:
        yield f"   wake at {decision.state.wake_at:%Y-%m-%d %H:%M}"


def tell_effect(effect: Effect) -> str:
    match effect:
        case MeasureEvidence():
            sizes = f"reference={len(effect.reference)} current={len(effect.current)}"
            more = {
                "grid": ",".join(b.key.rsplit("/", 1)[1].removesuffix(".parquet") for b in effect.grid),
                "first_predictions": len(effect.first_predictions),
                "classifier": effect.classifier,
            }
            told = "".join(f" {name}={value}" for name, value in more.items() if value)
            return f"MeasureEvidence {effect.key} {sizes} predictions={len(effect.predictions)}{told}"
        case StartExecution():
            objects = [
                o["uri"].rsplit("/", 1)[1].removesuffix(".parquet") for o in json.loads(effect.manifest)["objects"]
            ]
            return f"StartExecution {effect.key} on {','.join(objects)}"
        case PublishReport():
            since = ",".join(f"{d.column}:{d.since:%m-%dT%H:%M}" for d in effect.since)
            return f"PublishReport {effect.report_key}{' since ' + since if since else ''}"
        case AnswerApproval():
            return f"AnswerApproval {effect.execution} approved={effect.approved} token={effect.task_token}"
