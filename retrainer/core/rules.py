"""How the triggers are put together: what a decision asks, and the tree that explains it, by the same evaluation.

Without `when` in the policy any trigger is enough. With it, a rule over their names is: triggers read off measurements
count as the last one had them, schedules and alarms for as long as the rule waits for its other parts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from retrainer.core import guards, step, triggers
from retrainer.core.events import Event, EvidenceMeasured
from retrainer.core.execution import Met, TriggerKind
from retrainer.core.fleet import ALONE, Fleet
from retrainer.core.policy import AllOf, AnyOf, Policy, Repeated, Rule
from retrainer.core.state import Level, ModelState
from retrainer.core.triggers import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A part of the tree: a trigger or a rule of them is `met`, a guard when it lets a retraining start.

    `met` is None for what this event has not measured.
    """

    name: str
    met: bool | None
    value: str
    threshold: str
    children: tuple["Node", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """All that a decision looked at: what asks for a retraining, and every declared guard in order."""

    triggers: Node
    guards: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The triggers that are met now, and the state with what is remembered of the others.

    `said` is what a decision tells besides, `readings` is empty where the event has measured nothing, `rule` is the
    policy's `when` as it was evaluated.
    """

    state: ModelState
    met: tuple[Met, ...] = ()
    said: str = ""
    readings: tuple[Reading, ...] = ()
    rule: Node | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    """What the names of a rule stand for: levels as last measured, edges that wait and the one just come."""

    levels: Mapping[str, Level]
    thresholds: Mapping[str, str]
    edges: Mapping[str, Met]
    now: datetime


def asked(policy: Policy, state: ModelState, event: Event, now: datetime) -> Asked:
    """What the event asks for. `state` already holds what the event brought."""
    is_measurement = isinstance(event, EvidenceMeasured)
    readings = triggers.readings(policy, state, now) if is_measurement else ()
    edge, said = triggers.edge(policy, state, event, now)
    if readings:
        state = _remembered(policy, state, readings, now)
        said = "; ".join(r.aside for r in readings if r.aside)
    if policy.triggers.when is not None:
        return _ruled(policy, policy.triggers.when, Asked(state=state, said=said, readings=readings), edge, now)
    levels = tuple(triggers.level(policy, r.kind, r.why, now) for r in readings if r.met)
    # What waited for a rule that the policy has no more is enough by itself now.
    met = (*levels, *state.edges, *((edge,) if edge else ()))
    state = replace(state, edges=()) if state.edges else state
    return Asked(state=state, met=met, said=said, readings=readings)


def runs_out_at(policy: Policy, edge: Met) -> datetime | None:
    """When a schedule or an alarm that waits for the rest of a rule counts no more; None if it does not wait there."""
    within = _waits(policy.triggers.when).get(named(edge)) if policy.triggers.when else None
    return edge.at + within if within else None


def named(met: Met) -> str:
    """A trigger as rules name it."""
    return f"{met.kind}:{met.name}" if met.kind in (TriggerKind.SCHEDULE, TriggerKind.ALARM) else met.kind.value


# --- composition ---


def _ruled(policy: Policy, rule: Rule, found: Asked, edge: Met | None, now: datetime) -> Asked:
    """The policy's rule over what is known; a request by hand needs none."""
    by_hand = edge if edge and edge.kind is TriggerKind.MANUAL else None
    waits = _waits(rule)
    new = edge if edge and not by_hand and named(edge) in waits else None
    waiting, alone, over = _sorted(found.state.edges, waits, now)
    edges = {named(m): m for m in (*waiting, *((new,) if new else ()))}
    scope = _scope(policy, found.state, edges, now)
    node = evaluated(rule, scope)
    fired: Mapping[str, str] = {}
    if found.readings or new:
        fired = dict(_contributions(rule, node, scope))
    levels = tuple(
        triggers.level(policy, TriggerKind(name), why, now) for name, why in fired.items() if name not in edges
    )
    rest = tuple(m for name, m in edges.items() if name not in fired)
    said = [found.said] if found.said else []
    if edge and not by_hand and not new:
        said.append(f"{named(edge)} is in no rule of the policy")
    for m in over:
        gone = f"waiting for {_missing(rule, node, named(m))}" if named(m) in waits else "no rule names it any more"
        said.append(f"{named(m)} ran out, {gone}")
    if new and new in rest:
        until = new.at + (waits[named(new)] or timedelta(0))
        said.append(f"{named(new)} waits for {_missing(rule, node, named(new))} until {until:%Y-%m-%d %H:%M} UTC")
    met = (*levels, *(m for name, m in edges.items() if name in fired), *alone, *((by_hand,) if by_hand else ()))
    state = found.state if rest == found.state.edges else replace(found.state, edges=rest)
    return replace(found, state=state, met=met, said="; ".join(said), rule=node)


def _sorted(
    edges: tuple[Met, ...], waits: Mapping[str, timedelta | None], now: datetime
) -> tuple[tuple[Met, ...], tuple[Met, ...], tuple[Met, ...]]:
    """Edges that wait on, those that a changed rule takes alone, and those that are over or not in it any more."""
    waiting = tuple(m for m in edges if (within := waits.get(named(m))) and now < m.at + within)
    alone = tuple(m for m in edges if named(m) in waits and waits[named(m)] is None)
    return waiting, alone, tuple(m for m in edges if m not in waiting and m not in alone)


def _scope(policy: Policy, state: ModelState, edges: Mapping[str, Met], now: datetime) -> _Scope:
    return _Scope(
        levels={level.name: level for level in state.levels},
        thresholds={r.kind.value: r.threshold for r in triggers.readings(policy, state, now)},
        edges=edges,
        now=now,
    )


def evaluated(rule: Rule, scope: _Scope, within: timedelta | None = None) -> Node:
    """The rule and all its parts. An edge counts for `within`, and alone only at the moment that it comes."""
    match rule:
        case AllOf():
            children = tuple(evaluated(part, scope, rule.within) for part in rule.all)
            return _joined("all", all(c.met for c in children), len(children), children)
        case AnyOf():
            children = tuple(evaluated(part, scope, within) for part in rule.any)
            return _joined("any", any(c.met for c in children), 1, children)
        case Repeated():
            count = sum(_held(rule.of, scope, back) for back in range(1, rule.windows + 1))
            return Node(
                name=f"{rule.at_least} of the last {rule.windows}",
                met=count >= rule.at_least,
                value=f"{count} of the last {rule.windows} measurements",
                threshold=str(rule.at_least),
                children=(evaluated(rule.of, scope, within),),
            )
        case str() if ":" in rule:
            edge = scope.edges.get(rule)
            counts = edge is not None and (edge.at == scope.now if within is None else scope.now < edge.at + within)
            threshold = "now" if within is None else f"within {within}"
            value = f"{edge.why}, at {edge.at:%Y-%m-%d %H:%M} UTC" if edge else "has not come"
            return Node(name=rule, met=counts, value=value, threshold=threshold)
        case _:
            level = scope.levels.get(rule)
            value = level.why if level else "not measured yet"
            return Node(name=rule, met=bool(level and level.on), value=value, threshold=scope.thresholds.get(rule, ""))


def _joined(name: str, met: bool, least: int, children: tuple[Node, ...]) -> Node:
    return Node(
        name=name, met=met, value=f"{sum(bool(c.met) for c in children)} met", threshold=str(least), children=children
    )


def _held(rule: Rule, scope: _Scope, back: int) -> bool:
    """Whether the rule held at a measurement: 1 is the last one."""
    match rule:
        case AllOf():
            return all(_held(part, scope, back) for part in rule.all)
        case AnyOf():
            return any(_held(part, scope, back) for part in rule.any)
        case _:
            level = scope.levels.get(str(rule))
            return level is not None and len(level.history) >= back and level.history[-back]


def _contributions(rule: Rule, node: Node, scope: _Scope) -> Iterator[tuple[str, str]]:
    """The names that made the rule true, each with why."""
    if not node.met:
        return
    match rule:
        case AllOf() | AnyOf():
            inside = rule.all if isinstance(rule, AllOf) else rule.any
            for part, child in zip(inside, node.children, strict=True):
                yield from _contributions(part, child, scope)
        case Repeated():
            for leaf in _leaves(node):
                if any(scope.levels[leaf.name].history[-rule.windows :]):
                    yield leaf.name, f"{node.value}, at last {leaf.value}"
        case _:
            yield node.name, node.value


def _leaves(node: Node) -> Iterator[Node]:
    for child in node.children:
        yield from _leaves(child)
    if not node.children:
        yield node


def _missing(rule: Rule, node: Node, known: str) -> str:
    """What the rule lacks, in words; what is known already is not named."""
    match rule:
        case AllOf():
            lacking = [
                _missing(part, child, known)
                for part, child in zip(rule.all, node.children, strict=True)
                if not child.met
            ]
            return " and ".join(said for said in lacking if said)
        case AnyOf():
            either = [_missing(part, child, known) for part, child in zip(rule.any, node.children, strict=True)]
            return "" if "" in either else f"({' or '.join(either)})"
        case Repeated():
            return f"{node.name} {' '.join(leaf.name for leaf in _leaves(node))}"
        case _:
            return "" if rule == known else node.name


def _waits(rule: Rule, within: timedelta | None = None) -> dict[str, timedelta | None]:
    """How long each schedule and alarm of the rule counts, at the longest; None for one that is enough alone."""
    match rule:
        case AllOf() | AnyOf():
            found: dict[str, timedelta | None] = {}
            for part in rule.all if isinstance(rule, AllOf) else rule.any:
                for name, longest in _waits(part, rule.within if isinstance(rule, AllOf) else within).items():
                    known = found.get(name, longest)
                    found[name] = None if known is None or longest is None else max(known, longest)
            return found
        case str() if ":" in rule:
            return {rule: within}
        case _:
            return {}


def _remembered(policy: Policy, state: ModelState, readings: tuple[Reading, ...], now: datetime) -> ModelState:
    """The state with the levels as measured, where the policy looks back on them."""
    if state.evidence and triggers.spends_false_alarms(policy, state.evidence):
        state = replace(state, drift_checked_at=now)
    if not policy.triggers.looks_back:
        return state
    windows = policy.triggers.windows
    known = {level.name: level.history for level in state.levels}
    levels = (
        Level(
            name=r.kind.value,
            history=(*known.get(r.kind.value, ()), r.met)[-windows:] if windows else (),
            on=r.met,
            why=r.why if r.met else r.value,
        )
        for r in readings
    )
    return replace(state, levels=tuple(levels))


# --- the tree ---


def tree(policy: Policy, state: ModelState, event: Event, now: datetime, fleet: Fleet = ALONE) -> Tree:
    """What `decide` looks at with the same arguments; where it does not look, what it would see."""
    taken = step.take(policy, state, event, now)
    found = asked(policy, taken.state, event, now) if taken.look else Asked(state=taken.state)
    known = replace(found.state, kept=triggers.merged(found.state.kept, found.met))
    rule = policy.triggers.when
    if rule is None:
        children = tuple(_leaf(policy, known, found, name, now) for name in policy.triggers.names)
    else:
        edges = {named(m): m for m in known.edges}
        children = (found.rule or evaluated(rule, _scope(policy, known, edges, now)),)
    kept = tuple(
        Node(name=f"kept {named(m)}", met=True, value=m.why, threshold=f"since {m.at:%Y-%m-%d %H:%M} UTC")
        for m in known.kept
    )
    return Tree(
        triggers=Node(
            name="triggers",
            met=bool(known.kept),
            value=f"{len(known.kept)} kept",
            threshold="1",
            children=(*children, *kept),
        ),
        guards=tuple(
            Node(name=c.name, met=c.objection is None, value=c.value, threshold=c.threshold)
            for c in guards.checks(policy, known, now, fleet)
        ),
    )


def _leaf(policy: Policy, known: ModelState, found: Asked, name: str, now: datetime) -> Node:
    """A trigger of a policy without a rule; one read off a measurement that was made before is neither met nor not."""
    if ":" in name:
        edge = next((m for m in found.met if named(m) == name), None)
        return Node(name=name, met=edge is not None, value=edge.why if edge else "has not come", threshold="now")
    readings = found.readings or triggers.readings(policy, known, now)
    seen = next((r for r in readings if r.kind == name), None)
    if seen is None:
        return Node(name=name, met=None, value="not measured yet", threshold="")
    return Node(name=name, met=seen.met if found.readings else None, value=seen.value, threshold=seen.threshold)
