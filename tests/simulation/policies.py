"""Three models with policies that differ in what triggers, what guards and who approves; and what they change to."""

from collections.abc import Mapping
from functools import cache

from retrainer.core.policy import Policy
from retrainer.core.record import digest, dump

MACHINE = "arn:aws:states:eu-west-1:111111111111:stateMachine:retraining"
BUCKET = "data"
ALARM = "errors-high"
SHARED = "data/shared/"
OWN = "data/gamma/"

Policies = Mapping[str, tuple[Policy, str]]


def _columns() -> dict[str, object]:
    return {f"c{i}": {"kind": "numerical", "test": "psi", "threshold": 0.1} for i in range(5)}


def _drift(share: float) -> dict[str, object]:
    """Without a budget of false alarms: the hostile world's scores come without p-values."""
    return {"drift": {"share": share, "false_alarms_per_year": None}}


def _policy(model: str, prefix: str, **told: object) -> tuple[Policy, str]:
    declared: dict[str, object] = {
        "model": model,
        "data": {"bucket": BUCKET, "prefix": prefix, "timestamp": "timestamp", "columns": _columns()},
        "action": {"state_machine": MACHINE, "candidates": [{"name": "ease"}]},
        "gate": {"metric": "hit_rate_at_10"},
    }
    declared |= told
    guards = declared.get("guards", {})
    assert isinstance(guards, dict)
    policy = Policy.model_validate(declared | {"guards": {"backoff": None} | guards})
    return policy, digest(dump(policy))


@cache
def versions() -> tuple[Policies, ...]:
    """What the policy files say, before and after each change. Alpha and beta watch the same data."""
    tick = {"name": "tick", "cron": "*/4 * * * *"}
    strict = {"name": "strict", "cron": "*/7 * * * *", "misfire_grace": "90s"}
    night = {"name": "night", "cron": "30 2 * * *", "time_zone": "Europe/Berlin"}
    half = {"name": "half", "cron": "0,10,20,30,40,50 1-3 * * *", "time_zone": "Europe/Berlin"}
    gamma_triggers = _drift(0.5) | {"alarms": [ALARM], "schedules": [night, half]}
    first = {
        "alpha": _policy("alpha", SHARED, triggers=_drift(0.5), guards={"cooldown": "2m"}),
        "beta": _policy(
            "beta",
            SHARED,
            triggers={"volume": {"rows": 3000}, "schedules": [tick, strict]},
            guards={"cooldown": "30s", "rows_min": 500, "budget": {"executions": 3, "period": "12m"}},
        ),
        "gamma": _policy("gamma", OWN, triggers=gamma_triggers, guards={"cooldown": "1m"}, approval="manual"),
    }
    second = first | {
        "alpha": _policy("alpha", SHARED, triggers=_drift(0.2), guards={"cooldown": "1m"}),
        "beta": _policy(
            "beta",
            SHARED,
            triggers={"volume": {"rows": 2000}, "schedules": [tick]},
            guards={"cooldown": "90s", "rows_min": 500, "budget": {"executions": 2, "period": "9m"}},
        ),
    }
    third = second | {
        "gamma": _policy("gamma", OWN, triggers=gamma_triggers, guards={"cooldown": "3m"}),
        "alpha": first["alpha"],
    }
    return first, second, third


PAIR = ("alpha", "beta")
"""They watch the same data, so that both want to be retrained at once."""


@cache
def limited() -> tuple[Policies, ...]:
    """The same, but for a limit: neither of the pair starts while any other model's execution is under way."""
    return tuple(
        {model: _limited(policy) if model in PAIR else (policy, known) for model, (policy, known) in version.items()}
        for version in versions()
    )


def _limited(policy: Policy) -> tuple[Policy, str]:
    told = policy.model_dump(mode="json")
    limits = Policy.model_validate({**told, "guards": {**told["guards"], "fleet": {"concurrency": 1}}})
    return limits, digest(dump(limits))


@cache
def by_hash() -> Mapping[str, Policy]:
    """Every policy there ever was."""
    every = (*versions(), *limited())
    return {text_hash: policy for version in every for policy, text_hash in version.values()}
