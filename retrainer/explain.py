"""A recorded decision, told: what came, what was decided and why, what became of it; and a model's state. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from retrainer.core.execution import Billing, Execution
from retrainer.core.reason import Reason
from retrainer.core.state import ModelState
from retrainer.core.window import untried_rows
from retrainer.ports import Recorded
from retrainer.telemetry import word

Facts = Mapping[str, Any]
"""What `facts` gives: plain values, fit for JSON. `text` renders them, wherever they come from."""

MEANING: Mapping[str, str] = {
    Reason.RETRAINING: "a retraining starts",
    Reason.PAUSED: "an operator has paused the model; what is met meanwhile is kept",
    Reason.RUNNING: "a trigger is kept, because an execution of this model is under way",
    Reason.COOLING_DOWN: "a trigger is kept, because an execution ended a short while ago",
    Reason.TOO_FEW_ROWS: "a trigger is kept, because there is too little new to learn from",
    Reason.OVER_BUDGET: "a trigger is kept, because the budget is used up",
    Reason.QUIET_HOURS: "a trigger is kept, because these are quiet hours",
    Reason.FROZEN: "a trigger is kept, because nothing may change in this time",
    Reason.BACKING_OFF: "a trigger is kept, because the last retrainings were fruitless",
    Reason.FLEET_BUSY: "a trigger is kept, because all models together are at their limit",
    Reason.AFTER_OTHERS: "a trigger is kept, because another model's retraining comes first",
    Reason.NOTHING_MET: "nothing asks for a retraining",
    Reason.MEASURING: "evidence is being measured, and will be decided upon",
    Reason.NOT_WATCHED: "the policy does not watch this",
    Reason.NOTED: "for the record; nothing follows from it",
    Reason.RESUMED: "the pause is over",
    Reason.STALE: "this is about something that is no longer awaited",
    Reason.NOT_WAITING: "no execution of that name waits for a person",
    Reason.DATA_UNUSABLE: "some of the data cannot be used: it was left out, and held back what the policy says",
    Reason.EVIDENCE_FAILED: "nothing could be measured; it is tried again later",
    Reason.EFFECT_FAILED: "something decided could not be done",
    Reason.EXECUTION_STARTED: "Step Functions has accepted the execution",
    Reason.EXECUTION_FAILED: "the execution did not come to an outcome",
    Reason.APPROVAL_REQUESTED: "the challenger passed the gate, and a person is asked",
    Reason.APPROVED: "a person has approved the challenger",
    Reason.REJECTED: "a person has rejected the challenger",
    Reason.PROMOTED: "the challenger is the champion now",
    Reason.REFUSED: "the gate refused the challenger; the champion stays",
    Reason.SUPERSEDED: "a newer model was faster; the champion stays",
}

_CAME: Mapping[str, str] = {
    "object_created": "s3://{bucket}/{key} ({size_bytes} bytes)",
    "evidence_measured": "the answer to {effect}",
    "execution_started": "{execution}",
    "execution_ended": "{execution} {status}",
    "training_job_changed": "{job} is {status} ({secondary_status})",
    "alarm_changed": "alarm {alarm} is {state} since {changed_at}",
    "schedule_fired": "schedule {schedule}, due at {fire_at}",
    "retraining_requested": "{by}: {why}",
    "model_paused": "{by}: {why}",
    "model_resumed": "{by}",
    "approval_requested": "{execution}",
    "approval_answered": "{execution}, answered by {by}",
    "effect_failed": "{kind} {effect}: {why}",
    "effect_done": "{kind} {effect}",
    "woken": "the moment {wake_at} has passed",
    "policy_changed": "policy {policy_hash}",
}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def facts(recorded: Recorded, bucket: str | None = None) -> dict[str, Any]:
    """Everything known of a decision; `bucket` is where its reports lie, if it has any."""
    kinds = {word(kind): key for key, kind, _ in recorded.effects}
    event = {k: v for k, v in json.loads(recorded.event or "{}").items() if k != "task_token"}
    path = f"{f's3://{bucket}/' if bucket else ''}reports/{recorded.model}/{recorded.id}"
    return {
        "decision": recorded.id,
        "model": recorded.model,
        "at": recorded.at.isoformat(),
        "event": {"kind": word(recorded.event_kind), "identity": recorded.event_identity, "fields": event},
        "reason": recorded.reason,
        "meaning": MEANING.get(recorded.reason, ""),
        "detail": recorded.detail,
        "effects": [{"key": k, "kind": word(kind), "status": status} for k, kind, status in recorded.effects],
        "execution": kinds.get("start_execution") or event.get("execution"),
        "report": f"{path}.html" if "publish_report" in kinds else None,
        "page": f"{path}.page.html" if "publish_report" in kinds else None,
        "policy_hash": recorded.policy_hash,
        "state_hash_before": recorded.state_hash_before,
        "state_hash_after": recorded.state_hash_after,
    }


def state(known: ModelState, policy_hash: str | None) -> dict[str, Any]:
    """What is known of a model now. Every field is named here, so that the task token cannot slip through."""
    evidence, champion, pause = known.evidence, known.champion, known.pause
    return {
        "version": known.version,
        "generation": known.generation,
        "policy_hash": policy_hash,
        "champion": champion
        and {
            "generation": champion.generation,
            "execution": champion.execution,
            "model_package_arn": champion.model_package_arn,
            "promoted_at": champion.promoted_at.isoformat(),
            "metrics": champion.metrics,
        },
        "execution": _execution(known.execution),
        "window": {
            "batches": len(known.window),
            "rows": sum(b.rows or 0 for b in known.window),
            "rows_untried": untried_rows(known.window),
        },
        "kept": [{"kind": m.kind.value, "name": m.name, "why": m.why, "at": m.at.isoformat()} for m in known.kept],
        "pause": pause and {"by": pause.by, "why": pause.why, "since": pause.since.isoformat()},
        "measuring": known.measuring,
        "evidence": evidence
        and {
            "rows": evidence.rows,
            "drift_share": evidence.drift_share,
            "drifted": [c.column for c in evidence.drift if c.drifted],
            "drifting": {d.column: d.since.isoformat() for d in known.drifting},
            "unusable": {u.column: u.why for u in evidence.unusable},
            "metric": evidence.performance and evidence.performance.metric,
            "performance": evidence.performance and evidence.performance.value,
            "labels": evidence.performance and evidence.performance.labels,
        },
        "wake_at": known.wake_at and known.wake_at.isoformat(),
    }


def text(told: Facts) -> str:
    """The facts of one decision for a terminal. What a stranger may have written cannot move the cursor."""
    event = told["event"]
    lines = [
        f"{told['decision']}: {told['reason']} - {told['meaning']}",
        _line("at", told["at"]),
        _line("came", f"{event['kind']}: {came(event)}"),
        *(_line("", seen) for seen in _seen(event)),
        _line("identity", event["identity"]),
        *_block("led to it", [_linked(link) for link in told.get("led_to_it", ())]),
        *_block("rules", _rules(told)),
        _line("why", told["detail"] or told["meaning"]),
    ]
    if told["execution"]:
        lines.append(_line("execution", told["execution"]))
    lines += _block("effects", [f"{e['kind']} {e['key']}: {e['status']}" for e in told["effects"]])
    lines += _block("then", [_linked(link) for link in told.get("followed", ())])
    lines += _block("outcome", _ended(told.get("outcome")))
    if told["report"]:
        lines.append(_line("report", told["report"]))
    if told.get("page"):
        lines.append(_line("page", told["page"]))
    hashes = (told[name][:12] for name in ("policy_hash", "state_hash_before", "state_hash_after"))
    lines.append(_line("hashes", "policy {}, state {} -> {}".format(*hashes)))
    return "\n".join(lines)


def came(event: Facts) -> str:
    """What an event of `facts` says, in a phrase."""
    if not event["fields"]:
        return "its body was dropped when the ledger was compacted"
    try:
        return _CAME[event["kind"]].format(**event["fields"])
    except (KeyError, IndexError):
        # An event of another version of the daemon: told as it is stored.
        return json.dumps(event["fields"], ensure_ascii=False)


def printable(value: object) -> str:
    """The text of a value with its control characters spelt out."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", str(value))


def _execution(known: Execution | None) -> dict[str, Any] | None:
    if known is None:
        return None
    return {
        "name": known.name,
        "generation": known.generation,
        "attempt": known.attempt,
        "decision": known.decision,
        "status": known.status.value,
        "planned_at": known.planned_at.isoformat(),
        "arn": known.arn,
        "triggers": [f"{m.kind}: {m.why}" for m in known.triggers],
        "waits_for_approval_since": known.approval and known.approval.requested_at.isoformat(),
    }


def _line(label: str, value: object) -> str:
    return f"  {label:<10}{printable(value)}"


def _block(label: str, said: Sequence[str]) -> list[str]:
    return [_line(first, line) for first, line in zip((label, *[""] * len(said)), said, strict=False)]


def _linked(link: Facts) -> str:
    return f"{link['decision']} {link['at']} {link['event']}: {link['came']} -> {link['reason']}: {link['detail']}"


def _rules(told: Facts) -> Sequence[str]:
    """The tree of rules, every value against its threshold; as far as this is told of the decision at all."""
    if "rules" not in told:
        return []
    if not told["rules"]:
        return [f"cannot be told: {told['no_rules']}"]
    guards = {"name": "guards", "met": all(g["met"] for g in told["rules"]["guards"]), "value": "", "threshold": ""}
    guards["children"] = told["rules"]["guards"]
    return [*_branch(told["rules"]["triggers"], ""), *_branch(guards, "")]


def _branch(node: Facts, indent: str) -> list[str]:
    met = {True: "yes", False: "no ", None: "-  "}[node["met"]]
    against = f", against {node['threshold']}" if node["threshold"] else ""
    said = f"{indent}{met} {node['name']}{': ' if node['value'] or against else ''}{node['value']}{against}"
    return [said, *(line for child in node["children"] for line in _branch(child, indent + "  "))]


def _ended(told: Facts | None) -> Sequence[str]:
    if told is None:
        return []
    ended = f" at {told['ended_at']}, {told['became']}" if told["ended_at"] else ""
    waits = ", waits for a person" if told.get("waits_for_a_person") and not told["ended_at"] else ""
    said = [f"{told['execution']} {told['status']}{ended}{waits}"]
    if told.get("cause"):
        said.append(told["cause"])
    return [*said, *(_outcome(told["outcome"]) if told.get("outcome") else ())]


def _seen(event: Facts) -> Sequence[str]:
    """The figures that an event brought."""
    if evidence := event["fields"].get("evidence"):
        return _evidence(evidence)
    if outcome := event["fields"].get("outcome"):
        return _outcome(outcome)
    cause = event["fields"].get("cause")
    return [cause] if cause else []


def _evidence(evidence: Facts) -> Sequence[str]:
    seen = [f"{evidence['rows']} rows against {evidence['reference_rows']} of the reference window"]
    if evidence.get("began") and evidence.get("ended"):
        seen.append(f"rows of {evidence['began']} to {evidence['ended']}")
    for column in evidence["drift"]:
        verdict = "drifted" if column["drifted"] else "no drift"
        measured = f"{column['test']} {column['score']:.4g}, threshold {column['threshold']:g}"
        seen.append(f"{column['column']}: {measured}{_between(column)}: {verdict}{_shares(column)}")
    if done := evidence["performance"]:
        seen.append(f"{done['metric']} {done['value']:.4f} on {done['labels']} labels")
    seen += [f"refused s3://{r['bucket']}/{r['key']}: {r['why']}" for r in evidence["refused"]]
    seen += [f"unusable column {u['column']}: {u['why']}" for u in evidence.get("unusable", ())]
    return seen


def _between(column: Facts) -> str:
    """What the test may give on the rows, where it is not known to the last digit; how certain a change is."""
    low, high, p_value = (column.get(name) for name in ("low", "high", "p_value"))
    between = f", from {low:.4g} to {high:.4g}" if low is not None and high is not None and low < high else ""
    return between if p_value is None else f"{between}, p {p_value:.2g}"


def _shares(column: Facts) -> str:
    """Nulls, where they have become more or fewer, and categories that the reference does not have."""
    nulls, before, unseen = (column.get(name, 0.0) for name in ("nulls", "reference_nulls", "unseen"))
    said = [f"{nulls:.1%} nulls after {before:.1%}"] if f"{nulls:.1%}" != f"{before:.1%}" else []
    said += [f"{unseen:.1%} in unseen categories"] if unseen else []
    return f" ({', '.join(said)})" if said else ""


def _outcome(outcome: Facts) -> Sequence[str]:
    seen = [f"{outcome['verdict']}: {outcome['why']}"]
    if outcome["metric"] and outcome["challenger"] is not None:
        champion = f", champion {outcome['champion']:.4f}" if outcome["champion"] is not None else ""
        seen.append(f"{outcome['metric']}: challenger {outcome['challenger']:.4f}{champion}")
    if outcome.get("cost") is not None:
        seen.append(f"cost {outcome['cost']:.2f}")
    if outcome.get("refit") is not None:
        seen.append(
            "trained once more, on the holdout too" if outcome["refit"] else "the refit failed: goes on as measured"
        )
    if billing := outcome.get("billing"):
        saving = Billing(**billing).saving
        spot = f", spot saved {saving:.0%}" if saving else ""
        times = f", interrupted {billing['interruptions']} times" if billing["interruptions"] else ""
        seen.append(f"trained {billing['seconds']:g} s, billed {billing['billable_seconds']:g} s{spot}{times}")
    return seen


def notes(told: Facts) -> list[str]:
    """What in a daemon's status asks for somebody's attention."""
    said = [] if told["live"] and told["ready"] else [f"not well: {told['why'] or 'not ready'}"]
    said += [
        f"{execution['name']} waits since {execution['waits_for_approval_since']}: "
        f"retrainer approve {execution['name']}, or reject"
        for known in told["models"].values()
        if (execution := known["execution"]) and execution["waits_for_approval_since"]
    ]
    said += [f"policy: {error}" for error in told["policy_errors"]]
    said += [
        f"{model} has no policy any more: nothing is decided on it until it has one again"
        for model, known in told["models"].items()
        if known["policy_hash"] is None
    ]
    said.append(f"{told['ledger'].get('decisions', 0)} decisions, {told['ledger'].get('effects_owed', 0)} effects owed")
    return [printable(line) for line in said]
