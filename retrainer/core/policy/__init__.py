"""What an operator declares for one model: its data, what asks for a retraining, what objects, what is then done.

Read from policies/<model>.yaml; durations are written 90s, 15m, 6h, 30d, 2w.
"""

from typing import Literal

from pydantic import Field, model_validator

from retrainer.core.policy.action import Action, Backtest, Candidate, GateRule, Notify, Rollout, Timeouts
from retrainer.core.policy.data import (
    P_VALUES,
    Column,
    Current,
    Data,
    Metric,
    Predictions,
    Reference,
    ScaleOut,
    Test,
    Windows,
)
from retrainer.core.policy.duration import Declared, Duration
from retrainer.core.policy.guards import Backoff, Budget, Costs, Fleet, Freeze, Guards, Name, QuietHours
from retrainer.core.policy.triggers import (
    AllOf,
    AnyOf,
    ConceptTrigger,
    Correction,
    DriftTrigger,
    PerformanceTrigger,
    RegretTrigger,
    Repeated,
    Rule,
    Schedule,
    Triggers,
    VolumeTrigger,
)

__all__ = [
    "P_VALUES",
    "Action",
    "AllOf",
    "AnyOf",
    "Backoff",
    "Backtest",
    "Budget",
    "Candidate",
    "Column",
    "ConceptTrigger",
    "Correction",
    "Costs",
    "Current",
    "Data",
    "DriftTrigger",
    "Duration",
    "Fleet",
    "Freeze",
    "GateRule",
    "Guards",
    "Metric",
    "Notify",
    "PerformanceTrigger",
    "Policy",
    "Predictions",
    "QuietHours",
    "Reference",
    "RegretTrigger",
    "Repeated",
    "Rollout",
    "Rule",
    "ScaleOut",
    "Schedule",
    "Test",
    "Timeouts",
    "Triggers",
    "VolumeTrigger",
    "Windows",
]


class Policy(Declared):
    """One model's policy."""

    model: Name = Field(description="Lower-case letters, digits and -, at most 24")
    data: Data = Field(description="Where batches arrive and which of their columns matter")
    windows: Windows = Field(default=Windows(), description="What is compared with what")
    triggers: Triggers = Field(default=Triggers(), description="What asks for a retraining")
    guards: Guards = Field(default=Guards(), description="What holds a retraining back")
    costs: Costs | None = Field(default=None, description="What a retraining and a wrong prediction cost")
    action: Action = Field(description="What a retraining is")
    gate: GateRule = Field(description="What a new model must do to be promoted")
    approval: Literal["auto", "manual"] = Field(default="auto", description="manual: a person is asked first")
    rollout: Rollout = Field(default=Rollout(), description="How the new model takes over")
    notify: Notify = Field(default=Notify(), description="Of what somebody is told")
    backtest: Backtest = Field(default=Backtest(), description="What a backtest trains in place of the real model")

    @model_validator(mode="after")
    def _fits(self) -> "Policy":
        for check in (
            _drift_has_columns,
            _losses_have_predictions,
            _money_has_a_price,
            _reference_is_reachable,
            _waits_for_others,
        ):
            check(self)
        return self


def _drift_has_columns(policy: Policy) -> None:
    triggers, data = policy.triggers, policy.data
    predicted = data.predictions and data.predictions.test
    if triggers.drift and not data.watched and not predicted:
        raise ValueError("triggers.drift needs data.columns: name the columns to watch, each with its test")
    if triggers.drift and triggers.drift.classifier:
        if not data.watched:
            raise ValueError("triggers.drift.classifier needs data.columns: name the columns, each with its test")
        if policy.windows.reference.of == "monitor":
            raise ValueError(
                "triggers.drift.classifier needs the rows of the reference, and windows.reference is of: monitor, "
                "which has none; leave classifier out"
            )


def _losses_have_predictions(policy: Policy) -> None:
    triggers, data = policy.triggers, policy.data
    for name in ("performance", "regret", "concept"):
        if getattr(triggers, name) and not data.predictions:
            raise ValueError(f"triggers.{name} needs data.predictions: say where predictions are logged")
    if triggers.regret and data.predictions and data.predictions.metric == "roc_auc":
        raise ValueError(
            "triggers.regret adds up what each row lost, and roc_auc is of no single row; "
            "write metric: accuracy, or triggers.concept or triggers.performance in its place"
        )
    if triggers.performance and triggers.performance.estimated and data.predictions:
        metric = data.predictions.metric
        if metric not in ("accuracy", "roc_auc"):
            raise ValueError(f"accuracy and roc_auc can be estimated, {metric} cannot; leave estimated out")
        if metric == "accuracy" and data.predictions.confidence is None:
            raise ValueError("triggers.performance.estimated needs data.predictions.confidence: name the column")


def _money_has_a_price(policy: Policy) -> None:
    regret, guards, costs = policy.triggers.regret, policy.guards, policy.costs
    if regret and regret.price is None and (costs is None or costs.error is None):
        raise ValueError("triggers.regret needs a price: write price: there, or costs.error and costs.execution")
    for where, budget in (
        ("guards.budget", guards.budget),
        ("guards.fleet.budget", guards.fleet and guards.fleet.budget),
    ):
        if not budget or budget.money is None:
            continue
        if costs is None:
            raise ValueError(f"{where}.money needs costs: what an execution costs, as in costs: {{execution: 3.5}}")
        if costs.execution is not None and costs.execution > budget.money:
            raise ValueError(
                f"{where}.money {budget.money:g} is less than one execution costs, {costs.execution:g}; write more"
            )


def _reference_is_reachable(policy: Policy) -> None:
    for key in policy.windows.reference.keys:
        if not key.startswith("data/"):
            raise ValueError(
                f"windows.reference.keys has {key:.100}, which is not under data/; write a key of the data's bucket"
            )
    if policy.windows.reference.of == "monitor":
        for name, column in policy.data.watched.items():
            if column.kind not in ("numerical", "categorical"):
                raise ValueError(
                    f"windows.reference is of: monitor, which knows no {column.kind} as {name} is; "
                    "leave its test out, or write of: training"
                )


def _waits_for_others(policy: Policy) -> None:
    if policy.model in policy.guards.after:
        raise ValueError(f"guards.after names {policy.model} itself, which would wait for ever; name other models")
