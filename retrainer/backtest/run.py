"""A policy on a history: the daemon's own `decide`, its own measuring and its own gate, on a virtual clock.

Only the world is played. A batch's rows are requests that the champion of that moment answers, and its answers are
logged; the batch arrives with its labels the label delay later. An execution takes as long as it is told to, trains
the policy's family on its manifest and is judged on the holdout. A person who is asked says yes at once. Of what
happens at one moment, executions end first, then schedules fire, then requests are served, then data arrives.
"""

import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from retrainer.backtest import task as tasks
from retrainer.backtest.avoided import with_avoided
from retrainer.backtest.cache import Cache, named
from retrainer.backtest.families import family
from retrainer.backtest.history import History
from retrainer.backtest.models import Models
from retrainer.backtest.optimum import optimum
from retrainer.backtest.play import Play, Watch, own_cost, unwatched
from retrainer.backtest.results import Optimum, Result
from retrainer.core.policy import Policy
from retrainer.core.record import digest, dump
from retrainer.ports import ConfigError

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a backtest assumes of the world. `warmup` batches come before the first model; by default a tenth, up to 10.

    `price` of a retraining in units of loss goes before what the policy's costs say.
    """

    label_delay: timedelta = timedelta(0)
    training_takes: timedelta = timedelta(hours=1)
    warmup: int | None = None
    price: float | None = None
    seed: int = 0
    with_optimum: bool = True


class Backtests:
    """Runs policies on one history; what one of them had trained or measured serves the others."""

    def __init__(self, history: History, settings: Settings, cache: Cache) -> None:
        """Raises ConfigError where the warm-up leaves nothing to be played."""
        self.history = history.delayed(settings.label_delay)
        self.warmup = max(1, min(10, len(history) // 10)) if settings.warmup is None else settings.warmup
        self._settings, self._cache = settings, cache
        self._models: dict[str, Models] = {}
        if not 1 <= self.warmup < len(history):
            has = f"{history.source} has {len(history)} batches"
            raise ConfigError(f"{has}, and the warm-up takes {self.warmup}; write --warmup 1 to {len(history) - 1}")

    @property
    def trainings(self) -> int:
        """How many models were really trained; the others were remembered."""
        return sum(models.fitted for models in self._models.values())

    def run(self, policy: Policy, name: str, *, tell: Tell = lambda text: None, watch: Watch = unwatched) -> Result:
        """What the policy would have done. `watch` is shown every event, its moment and the decision.

        Raises ConfigError where the policy does not fit the history, PermanentError where it cannot be measured.
        """
        began = time.perf_counter()
        settings = self._settings
        models = self._models_of(policy)
        play = Play(
            policy=policy,
            history=self.history,
            models=models,
            cache=self._cache,
            warmup=self.warmup,
            training_takes=settings.training_takes,
            tell=lambda text: tell(f"{name}: {text}"),
            watch=watch,
        )
        play.play()
        price = price_of(policy, settings)
        costs = policy.costs
        result = Result(
            name=name,
            model=policy.model,
            policy_hash=digest(dump(policy)),
            family=policy.backtest.family,
            metric=models.task.metric,
            seed=settings.seed,
            history=self.history.source,
            batches=len(self.history),
            first_served=None,
            label_delay=settings.label_delay,
            training_takes=settings.training_takes,
            price=price,
            execution_cost=own_cost(policy, settings.training_takes),
            error_cost=costs.error if costs else None,
            currency=costs.currency if costs else "",
            steps=tuple(play.steps),
            retrainings=tuple(play.retrainings),
            scores=play.scores(),
            warmup=self.warmup,
        )
        if result.served:
            result = replace(result, first_served=result.served[0].index)
        if price is not None and settings.with_optimum and result.served:
            result = replace(result, optimum=self._optimum(policy, play, result, price, tell))
            result = with_avoided(result, models, play.learned)
        return replace(result, took_seconds=round(time.perf_counter() - began, 3))

    def _models_of(self, policy: Policy) -> Models:
        task = tasks.task(policy, self._settings.seed)
        check_gate(policy, task)
        wanted = family(policy.backtest)
        share, refit = policy.action.holdout_share, policy.action.refit
        key = named(list(task.identity), list(wanted.identity), share, refit)
        if key not in self._models:
            self._models[key] = Models(self.history, task, wanted, self._cache, holdout_share=share, refit=refit)
        return self._models[key]

    def _optimum(self, policy: Policy, play: Play, result: Result, price: float, tell: Tell) -> Optimum:
        served = result.served
        return optimum(
            self.history.batches,
            self._models_of(policy),
            first=play.learned[served[0].generation],
            served=[s.index for s in served],
            price=price,
            training_takes=self._settings.training_takes,
            training_batches=policy.windows.training_batches,
            tell=tell,
        )


def price_of(policy: Policy, settings: Settings) -> float | None:
    """What a retraining costs in units of loss: as asked, by the policy's costs, or by its regret trigger."""
    if settings.price is not None:
        return settings.price
    costs, regret = policy.costs, policy.triggers.regret
    execution = own_cost(policy, settings.training_takes)
    if costs and costs.error and execution is not None:
        return execution / costs.error
    return regret.price if regret else None


def unjoined(policy: Policy, history: History) -> str:
    """What to mend where labels come so late that the predictions they belong to have left the window; else nothing."""
    if policy.data.predictions is None:
        return ""
    kept, moments = policy.data.predictions.batches, [b.at for b in history.batches]
    late = max(bisect_right(moments, b.label_at) - b.index - 1 for b in history.batches)
    if late < kept:
        return ""
    said = f"labels come {late} batches late, and the predictions of {kept} are kept: hardly one meets its label"
    return f"{said}; write data.predictions.batches: {late + 1} or more"


def check_gate(policy: Policy, task: tasks.Task) -> None:
    """Raises ConfigError where the gate asks for what no family here measures."""
    known, rules = tasks.GATE_METRICS[task.metric], tasks.BASELINES[task.metric]
    if policy.gate.metric not in known:
        said = f"gate.metric: a backtest of {task.metric} does not measure {policy.gate.metric}"
        raise ConfigError(f"{said}; write one of {', '.join(known)} (of each, more is better)")
    if unknown := [name for name in policy.gate.baselines if name not in rules]:
        said = f"gate.baselines: a backtest of {task.metric} has no {unknown[0]}"
        raise ConfigError(f"{said}; write {', '.join(rules)}, or leave it out")
