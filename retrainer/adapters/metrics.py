"""What is counted: Prometheus metrics in a registry of our own, with bounded labels that all start at 0."""

import asyncio
import platform
from collections.abc import Collection, Mapping
from functools import cache
from math import nan
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from retrainer import __version__
from retrainer.core.events import Event, EvidenceMeasured, ExecutionEnded
from retrainer.core.execution import Billing, Status
from retrainer.core.policy import Metric
from retrainer.core.reason import Reason
from retrainer.core.state import ModelState
from retrainer.core.window import untried_rows
from retrainer.ports import Committed, Entry, Owed, Verdict
from retrainer.telemetry import EFFECTS, EVENTS, Health, word, word_of

CONTENT_TYPE = CONTENT_TYPE_LATEST
UNKNOWN = "unknown"
TASKS = (
    "poll",
    "handle",
    "refuse",
    "acknowledge",
    "release",
    "keep",
    "outbox",
    "carry_out",
    "postpone",
    "observer",
    "schedule",
    "timers",
    "wake",
)
"""What the loop and its neighbours call their work when it fails; wiring adds the names it supervises."""
TABLES = ("events", "model_state", "decisions", "effects", "executions", "fires", "quarantine")
_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_SLOW = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Counts what `ports.Telemetry` is told, and shows the last state of each model.

    A label's value is always from a closed set: the queues (their URLs or names), the kinds a parser may answer, the
    pollers and the loop's tasks given here, the models that `watch` names, the core's own words. Anything else is
    "unknown".
    """

    def __init__(
        self,
        *,
        queues: Collection[str],
        kinds: Collection[str],
        tasks: Collection[str] = (),
        pollers: Collection[str] = (),
    ) -> None:
        self.registry = CollectorRegistry()
        self._queues = {_queue(q) for q in queues}
        self._kinds = {word(k) for k in kinds}
        self._tasks = {word(t) for t in (*TASKS, *tasks, *pollers)}
        self._pollers = tuple(pollers)
        self._models: set[str] = set()
        self._files: set[str] = set()
        self._states: dict[str, ModelState] = {}
        """Of models that have changed since the last exposition: their gauges are set when somebody looks."""
        self._declare_flow(self.registry)
        self._declare_models(self.registry)
        self._declare_health(self.registry)
        self._start_at_zero()

    def _declare_flow(self, to: CollectorRegistry) -> None:
        self._messages = Counter("retrainer_messages", "Messages received", ("queue", "kind", "verdict"), registry=to)
        self._events = Counter("retrainer_events", "Events decided upon", ("model", "kind"), registry=to)
        self._decisions = Counter("retrainer_decisions", "Decisions", ("model", "reason"), registry=to)
        self._refused = Counter("retrainer_batches_refused", "Batches that cannot be used", ("model",), registry=to)
        self._ended = Counter("retrainer_executions", "Ended executions", ("model", "status"), registry=to)
        self._cost = Counter(
            "retrainer_execution_cost", "What ended executions cost, in their own currency", ("model",), registry=to
        )
        self._trained = Counter("retrainer_training_seconds", "What training jobs ran", ("model",), registry=to)
        self._billed = Counter("retrainer_training_billable_seconds", "What of it is billed", ("model",), registry=to)
        self._interrupted = Counter(
            "retrainer_training_interruptions", "Spot instances taken back while they trained", ("model",), registry=to
        )
        self._commits = Counter("retrainer_commits", "What became of commits to the ledger", ("result",), registry=to)
        self._effects = Counter("retrainer_effects", "Tries to carry out an effect", ("kind", "result"), registry=to)
        self._retries = Counter(
            "retrainer_effect_retries", "Tries but the first of each effect", ("kind",), registry=to
        )
        self._failures = Counter("retrainer_task_failures", "Failures of the loop's own work", ("task",), registry=to)
        self._decision_seconds = Histogram(
            "retrainer_decision_seconds", "From event to commit", buckets=_QUICK, registry=to
        )
        self._effect_seconds = Histogram(
            "retrainer_effect_seconds", "Carrying out an effect", ("kind",), buckets=_SLOW, registry=to
        )

    def _declare_models(self, to: CollectorRegistry) -> None:
        def gauge(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(f"retrainer_{name}", says, ("model", *labels), registry=to)

        self._drift_share = gauge("drift_share", "Share of the watched columns that drifted, as last measured")
        self._performance = gauge("performance", "The metric of served predictions, as last measured", "metric")
        self._execution_active = gauge("execution_active", "1 while an execution is planned or running")
        self._approval_waiting = gauge("approval_waiting", "1 while an execution waits for a person")
        self._generation = gauge("generation", "Executions planned so far")
        self._champion_generation = gauge("champion_generation", "Generation of the model in production; 0 for none")
        self._paused = gauge("paused", "1 while an operator has paused the model")
        self._triggers_kept = gauge("triggers_kept", "Triggers met while a guard objects")
        self._fruitless = gauge("retrainings_fruitless", "Retrainings in a row that the gate has refused")
        self._rows_untried = gauge("rows_untried", "Rows that no finished execution has been trained on")
        self._spot_saving = gauge("spot_saving", "1 - billable / training seconds, of the last outcome")

    def _declare_health(self, to: CollectorRegistry) -> None:
        self._owed = Gauge("retrainer_effects_owed", "Effects not carried out yet", registry=to)
        self._rows = Gauge("retrainer_ledger_rows", "Rows of the ledger", ("table",), registry=to)
        self._bytes = Gauge("retrainer_ledger_bytes", "What the ledger takes on disk", registry=to)
        self._policy_valid = Gauge("retrainer_policy_valid", "1 if the policy file can be used", ("file",), registry=to)
        self._policy_errors = Gauge("retrainer_policy_errors", "Policy files that cannot be used", registry=to)
        self._poll_age = Gauge(
            "retrainer_last_poll_age_seconds", "Since a poll was last completed", ("queue",), registry=to
        )
        self._poller_age = Gauge(
            "retrainer_poller_age_seconds", "Since a poller last came round; 0 while it rests", ("poller",), registry=to
        )
        self._loop_lag = Gauge("retrainer_loop_lag_seconds", "How late the event loop runs what is due", registry=to)
        Info("retrainer_build", "What is running", registry=to).info(
            {"version": __version__, "python": platform.python_version()}
        )
        ProcessCollector(registry=to)

    def _start_at_zero(self) -> None:
        for queue in (*self._queues, UNKNOWN):
            for kind in (*self._kinds, UNKNOWN):
                for verdict in Verdict:
                    self._messages.labels(queue, kind, verdict.value)
        for committed in Committed:
            self._commits.labels(committed.value)
        for kind in EFFECTS:
            self._effect_seconds.labels(kind)
            self._retries.labels(kind)
            for result in ("done", "error"):
                self._effects.labels(kind, result)
        for metric, names in (
            (self._failures, (*self._tasks, UNKNOWN)),
            (self._rows, TABLES),
            (self._poll_age, self._queues),
            (self._poller_age, self._pollers),
        ):
            for name in names:
                metric.labels(name)
        self._start_model_at_zero(UNKNOWN)

    def _start_model_at_zero(self, model: str) -> None:
        for kind in EVENTS:
            self._events.labels(model, kind)
        for reason in Reason:
            self._decisions.labels(model, reason.value)
        self._refused.labels(model)
        for counter in (self._cost, self._trained, self._billed, self._interrupted):
            counter.labels(model)
        self._spot_saving.labels(model)
        for status in set(Status) - {Status.PLANNED, Status.RUNNING}:
            self._ended.labels(model, status.value)

    # --- what wiring tells ---

    def watch(self, models: Collection[str]) -> None:
        """The models there are policies for: only these are labels. A model that is gone keeps its counters."""
        new, gone = set(models) - self._models, self._models - set(models)
        self._models = set(models)
        for model in new:
            self._start_model_at_zero(model)
            self.model(ModelState(model=model))
        for model in gone:
            self._states.pop(model, None)
            for gauge in self._gauges():
                gauge.remove_by_labels({"model": model})

    def model(self, state: ModelState) -> None:
        """Show a model's state, as after a start; `decided` does so for each decision."""
        if state.model in self._models:
            self._states[state.model] = state

    def _show(self, state: ModelState) -> None:
        model, evidence = state.model, state.evidence
        self._drift_share.labels(model).set(evidence.drift_share if evidence else 0)
        seen = evidence.performance if evidence else None
        for metric in get_args(Metric):
            # NaN until measured: a 0 would be the worst of figures, and would ring.
            self._performance.labels(model, metric).set(seen.value if seen and seen.metric == metric else nan)
        self._execution_active.labels(model).set(state.execution is not None)
        self._approval_waiting.labels(model).set(bool(state.execution and state.execution.approval))
        self._generation.labels(model).set(state.generation)
        self._champion_generation.labels(model).set(state.champion.generation if state.champion else 0)
        self._paused.labels(model).set(state.pause is not None)
        self._triggers_kept.labels(model).set(len(state.kept))
        self._fruitless.labels(model).set(state.fruitless)
        self._rows_untried.labels(model).set(untried_rows(state.window))

    def policy_files(self, valid: Mapping[str, bool]) -> None:
        """Which policy files (their names) can be used."""
        for gone in self._files - set(valid):
            self._policy_valid.remove(gone)
        for file, is_valid in valid.items():
            self._policy_valid.labels(file).set(is_valid)
        self._files = set(valid)
        self._policy_errors.set(sum(not v for v in valid.values()))

    def ledger(self, counts: Mapping[str, int], size_bytes: int | None = None) -> None:
        """What `Ledger.counts` and `size_bytes` say; the keys are the ledger's tables, and so bounded."""
        if size_bytes is not None:
            self._bytes.set(size_bytes)
        for table, rows in counts.items():
            if table == "effects_owed":
                self._owed.set(rows)
            else:
                self._rows.labels(table).set(rows)

    def health(self, health: Health) -> None:
        """The loop's lag and the age of the last completed polls."""
        self._loop_lag.set(health.loop_lag_seconds)
        for queue, age in health.poll_age_seconds.items():
            name = _queue(queue)
            self._poll_age.labels(name if name in self._queues else UNKNOWN).set(age)

    def poller_ages(self, age_seconds: Mapping[str, float]) -> None:
        """How long ago each poller last came round, by its name; those that rest are left out."""
        for poller in self._pollers:
            self._poller_age.labels(poller).set(age_seconds.get(poller, 0.0))

    async def render(self) -> bytes:
        """The exposition, of CONTENT_TYPE; rendered off the loop, which it would block for tens of milliseconds."""
        while self._states:
            self._show(self._states.popitem()[1])
        return await asyncio.to_thread(generate_latest, self.registry)

    # --- ports.Telemetry ---

    def received(self, queue: str, kind: str, verdict: Verdict, why: str) -> None:
        name = _queue(queue)
        known = word(kind) if word(kind) in self._kinds else UNKNOWN
        _at(self._messages, name if name in self._queues else UNKNOWN, known, verdict.value).inc()

    def decided(self, entry: Entry, committed: Committed, took_seconds: float) -> None:
        _at(self._commits, committed.value).inc()
        if committed is not Committed.NEW:
            return
        model = entry.model if entry.model in self._models else UNKNOWN
        _at(self._events, model, word_of(entry.event)).inc()
        _at(self._decisions, model, entry.decision.reason.value).inc()
        # Both may lead straight to a retraining, which is then the decision's reason: they are counted by themselves.
        match entry.event:
            case EvidenceMeasured(evidence=evidence):
                self._refused.labels(model).inc(len(evidence.refused))
            case ExecutionEnded(status=status, outcome=outcome, billing=billing):
                self._ended.labels(model, status.value).inc()
                self._cost.labels(model).inc((outcome and outcome.cost) or 0.0)
                if billing := (outcome.billing if outcome else billing):
                    self._bill(model, billing)
            case _:
                pass
        self._decision_seconds.observe(took_seconds)
        self.model(entry.decision.state)

    def _bill(self, model: str, billing: Billing) -> None:
        self._trained.labels(model).inc(billing.seconds)
        self._billed.labels(model).inc(billing.billable_seconds)
        self._interrupted.labels(model).inc(billing.interruptions)
        self._spot_saving.labels(model).set(billing.saving)

    def duplicate(self, model: str, event: Event) -> None:
        _at(self._commits, Committed.DUPLICATE.value).inc()

    def carried_out(self, owed: Owed, error: str | None, took_seconds: float) -> None:
        kind = word_of(owed.effect)
        self._effects.labels(kind, "done" if error is None else "error").inc()
        self._effect_seconds.labels(kind).observe(took_seconds)
        if owed.tries > 1:
            self._retries.labels(kind).inc()

    def failed(self, what: str, error: BaseException) -> None:
        self._failures.labels(word(what) if word(what) in self._tasks else UNKNOWN).inc()

    def _gauges(self) -> tuple[Gauge, ...]:
        return (
            self._drift_share,
            self._performance,
            self._execution_active,
            self._approval_waiting,
            self._generation,
            self._champion_generation,
            self._paused,
            self._triggers_kept,
            self._fruitless,
            self._rows_untried,
            self._spot_saving,
        )


@cache
def _at(counter: Counter, *labels: str) -> Counter:
    """The series with these labels; to look it up costs more than to count, and counters are never removed."""
    return counter.labels(*labels)


def _queue(url: str) -> str:
    """A queue's name: its URL holds the account, which is nobody's business on a dashboard."""
    return url.rstrip("/").rsplit("/", 1)[-1]
