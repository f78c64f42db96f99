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


def _policy(model: str, prefix: str, **told: object) -> tuple[Policy, str]:
    declared: dict[str, object] = {
        "model": model,
        "data": {"bucket": BUCKET, "prefix": prefix, "timestamp": "timestamp", "columns": _columns()},
        "action": {"state_machine": MACHINE, "candidates": [{"name": "ease"}]},
        "gate": {"metric": "hit_rate_at_10"},
    }
    policy = Policy.model_validate(declared | told)
    return policy, digest(dump(policy))


@cache
def versions() -> tuple[Policies, ...]:
    """What the policy files say, before and after each change. Alpha and beta watch the same data."""
    tick = {"name": "tick", "cron": "*/4 * * * *"}
    strict = {"name": "strict", "cron": "*/7 * * * *", "misfire_grace": "90s"}
    night = {"name": "night", "cron": "30 2 * * *", "time_zone": "Europe/Berlin"}
    half = {"name": "half", "cron": "0,10,20,30,40,50 1-3 * * *", "time_zone": "Europe/Berlin"}
    gamma_triggers = {"drift": {"share": 0.5}, "alarms": [ALARM], "schedules": [night, half]}
    first = {
        "alpha": _policy("alpha", SHARED, triggers={"drift": {"share": 0.5}}, guards={"cooldown": "2m"}),
        "beta": _policy(
            "beta",
            SHARED,
            triggers={"volume": {"rows": 3000}, "schedules": [tick, strict]},
            guards={"cooldown": "30s", "rows_min": 500, "budget": {"executions": 3, "period": "12m"}},
        ),
        "gamma": _policy("gamma", OWN, triggers=gamma_triggers, guards={"cooldown": "1m"}, approval="manual"),
    }
    second = first | {
        "alpha": _policy("alpha", SHARED, triggers={"drift": {"share": 0.2}}, guards={"cooldown": "1m"}),
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


@cache
def by_hash() -> Mapping[str, Policy]:
    """Every policy there ever was."""
    return {text_hash: policy for version in versions() for policy, text_hash in version.values()}
