"""Notify: one short message to the topic for every end of an execution, and a failure told in one sentence."""

import json
import os
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from steps import clients
from steps.evaluate import billing

SUBJECT_MAX = 100
CAUSE_MAX = 1000
"""Of the 32,768 characters a cause may have: a sentence, not a stack trace."""


def explain(caught: Mapping[str, Any]) -> dict[str, str]:
    """A Catch's {Error, Cause} as {error, cause}, the cause one sentence.

    A Lambda function's cause is JSON with `errorMessage`, a SageMaker job's is JSON with `FailureReason`, a time-out
    has none.
    """
    error = str(caught.get("Error") or "States.Unknown")
    cause = str(caught.get("Cause") or f"{error}, without a further word.")
    try:
        told = json.loads(cause)
    except ValueError:
        told = None
    if isinstance(told, dict):
        cause = str(told.get("errorMessage") or told.get("FailureReason") or told.get("message") or cause)
    return {"error": error, "cause": cause[:CAUSE_MAX]}


def explain_candidates(candidates: list[Mapping[str, Any]]) -> dict[str, str]:
    """All candidates failed: which, and each with its own sentence."""
    told = [f"{c['name']}: {explain(c.get('error') or {})['cause']}" for c in candidates]
    return {"error": "TrainingError", "cause": f"No candidate was trained. {'; '.join(told)}"[:CAUSE_MAX]}


def publish(sns: clients.Topics, topic: str, subject: str, body: Mapping[str, Any]) -> None:
    """SNS takes subjects of up to 100 printable ASCII characters."""
    plain = subject.encode("ascii", "replace").decode()[:SUBJECT_MAX]
    sns.publish(TopicArn=topic, Subject=plain, Message=json.dumps(body, indent=2, sort_keys=True))


def failure(event: Mapping[str, Any]) -> dict[str, str]:
    caught = event["caught"]
    return explain_candidates(caught["candidates"]) if "candidates" in caught else explain(caught)


def billed(execution: str) -> str:
    """What its training took, after the cause: an execution that fails has no output, and the daemon reads it here.

    In the words that Billing.of_failed of retrainer/core/execution.py knows. Empty where nothing was trained, and
    where SageMaker does not say: the failure has to be told all the same.
    """
    try:
        told = billing(clients.sagemaker(), execution)
    except (BotoCoreError, ClientError):
        return ""
    seconds, billable, times = (told[name] for name in ("seconds", "billable_seconds", "interruptions"))
    return f" Trained {seconds} s, billed {billable} s, interrupted {times} times." if any(told.values()) else ""


def handler(event: dict[str, Any], _context: object) -> dict[str, str]:
    """`{"outcome": ...}` for an execution that came to an end, `{"caught": ...}` for one that failed."""
    topic, execution = os.environ["TOPIC_ARN"], event["execution"]
    if "caught" in event:
        told = failure(event)
        told["cause"] += billed(execution)
        if is_wanted(event, "failed"):
            publish(clients.sns(), topic, f"{execution} failed: {told['error']}", {"execution": execution, **told})
        return told
    outcome = event["outcome"]
    if is_wanted(event, outcome["outcome"]):
        publish(clients.sns(), topic, f"{execution} {outcome['outcome']}", {"execution": execution, **outcome})
    return {}


def is_wanted(event: Mapping[str, Any], end: str) -> bool:
    """Whether the policy wants to hear of such an end; an execution that no policy speaks for is always told of."""
    given = event.get("input")
    wanted = given.get("notify") if isinstance(given, dict) else None
    return not isinstance(wanted, list) or end in wanted
