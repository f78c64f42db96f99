"""What a policy would have done comes out as it should, on streams whose answer is known."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from retrainer.backtest.cache import Cache
from retrainer.backtest.history import open_history
from retrainer.backtest.results import Result
from retrainer.backtest.run import Backtests, Settings, unjoined
from retrainer.cli import main
from retrainer.core.execution import TriggerKind, Verdict
from retrainer.ports import ConfigError
from tests.backtest import stream

pytestmark = pytest.mark.usefixtures("engine")

TURNS_AT = 12


@pytest.fixture(scope="module")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stream.write(tmp_path_factory.mktemp("drifting"), days=24, turns_at=TURNS_AT, count=150)


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stream.write(tmp_path_factory.mktemp("steady"), days=24, turns_at=None, count=150)


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def played(folder: Path, cache: Path, settings: Settings | None = None, /, **changes: Any) -> Result:
    policy = stream.policy(**changes)
    return Backtests(open_history(str(folder), policy.data), settings or Settings(), Cache(cache)).run(policy, "it")


@pytest.mark.parametrize("triggers", [{}, {"triggers": {"regret": {}}}], ids=["drift and performance", "regret"])
def test_a_turn_of_the_concept_is_answered_soon_after_it(drifting: Path, cached: Path, triggers: Any) -> None:
    result = played(drifting, cached, **triggers)
    turned = stream.START + timedelta(days=TURNS_AT)
    planned = [r.planned_at for r in result.counted]
    assert planned
    assert turned < planned[0] < turned + timedelta(days=3)
    assert result.served[-1].loss is not None
    assert result.served[-1].loss < 0.15
    assert result.optimum
    assert result.optimum.cost <= result.cost < sum(result.optimum.never)


@pytest.mark.parametrize("triggers", [{}, {"triggers": {"regret": {}}}], ids=["drift and performance", "regret"])
def test_a_steady_stream_is_left_alone(steady: Path, cached: Path, triggers: Any) -> None:
    result = played(steady, cached, **triggers)
    assert result.counted == ()
    assert result.cost == result.errors


def test_the_first_model_is_asked_for_at_the_end_of_the_warm_up(drifting: Path, cached: Path) -> None:
    result = played(drifting, cached, Settings(warmup=5, with_optimum=False))
    first = result.retrainings[0]
    assert first.first
    assert [t.kind for t in first.triggers] == [TriggerKind.MANUAL]
    assert (first.through, first.planned_at) == (4, result.scores[4].label_at)
    assert result.first_served == 5
    assert result.scores[4].loss_sum is None


def test_a_trigger_met_within_the_warm_up_asks_sooner_and_costs_nothing(drifting: Path, cached: Path) -> None:
    result = played(drifting, cached, Settings(warmup=5, with_optimum=False), triggers={"volume": {"rows": 300}})
    early = [r for r in result.retrainings if r.planned_at <= result.scores[4].at]
    assert early
    assert all(r.first for r in early[:1])
    assert result.served[0].index == 5


def test_late_labels_are_answered_late(drifting: Path, cached: Path) -> None:
    triggers: dict[str, Any] = {"performance": {"drop": 0.2, "labels_min": 100}}
    soon, late = (
        played(drifting, cached, Settings(label_delay=timedelta(days=d), with_optimum=False), triggers=triggers)
        for d in (0, 3)
    )
    turned = stream.START + timedelta(days=TURNS_AT)
    assert soon.counted[0].planned_at < turned + timedelta(days=3) <= late.counted[0].planned_at


def test_a_training_takes_its_time_and_the_old_model_serves_meanwhile(drifting: Path, cached: Path) -> None:
    result = played(drifting, cached, Settings(training_takes=timedelta(days=2, hours=1), with_optimum=False))
    one = result.counted[0]
    assert one.ended_at
    assert one.ended_at - one.planned_at == timedelta(days=2, hours=1)
    meanwhile = [s.generation for s in result.served if one.planned_at < s.at < one.ended_at]
    assert len(meanwhile) == 2
    assert set(meanwhile) == {1}
    assert result.latencies[0] >= timedelta(days=2, hours=1)


def test_a_challenger_that_gains_too_little_is_refused(drifting: Path, cached: Path) -> None:
    result = played(drifting, cached, gate={"metric": "accuracy", "min_gain": 0.9})
    assert {r.verdict for r in result.counted} == {Verdict.REFUSED}
    assert {s.generation for s in result.served} == {1}
    assert "refused" in result.reasons


def test_a_gain_has_to_be_as_sure_as_the_policy_asks(drifting: Path, cached: Path) -> None:
    sure = played(drifting, cached, gate={"metric": "accuracy", "confidence": 0.9})
    promoted = [r for r in sure.counted if r.verdict is Verdict.PROMOTED]
    assert promoted
    assert all("resamplings) meets the least gain of 0.0000 in 90 %: it is exceeded in" in r.why for r in promoted)
    first = promoted[0]
    gain = (first.challenger or 0.0) - (first.champion or 0.0)
    assert gain > 0
    asked = {"metric": "accuracy", "min_gain": gain - 0.001, "confidence": 0.99}
    unsure = played(drifting, cached, gate=asked)
    (same,) = (r for r in unsure.counted if r.planned_at == first.planned_at)
    assert same.verdict is Verdict.REFUSED
    assert f"resamplings) misses the least gain of {gain - 0.001:.4f} in 99 %" in same.why


def test_with_refit_what_serves_has_learned_the_newest_rows_and_the_gate_judges_what_has_not(tmp_path: Path) -> None:
    history = stream.write(tmp_path / "h", days=14, turns_at=9, count=150)  # of the first model's three days the last
    settings = Settings(warmup=10, with_optimum=False)
    family = {"family": "hist_gradient_boosting"}
    changes: dict[str, Any] = {"triggers": {}, "windows": {"training_batches": 3}, "backtest": family}
    plain, refit = (
        played(history, tmp_path / f"{refit}", settings, **changes, action=action(refit=refit, holdout_share=0.4))
        for refit in (False, True)
    )
    first, same = (result.retrainings[0] for result in (plain, refit))
    assert (first.challenger, first.holdout_rows) == (same.challenger, same.holdout_rows)
    before, after = (sum(s.loss or 0.0 for s in result.served) for result in (plain, refit))
    assert 0 < after < before / 2


def action(**changes: Any) -> dict[str, Any]:
    return stream.policy().action.model_dump(mode="json") | changes


def test_a_baseline_that_is_not_beaten_refuses_the_first_model_too(steady: Path, cached: Path) -> None:
    with pytest.raises(ConfigError, match="has no popularity; write majority"):
        played(steady, cached, gate={"metric": "accuracy", "baselines": ["popularity"]})
    result = played(steady, cached, gate={"metric": "accuracy", "baselines": ["majority"]})
    assert result.retrainings[0].verdict is Verdict.PROMOTED


def test_schedules_fire_on_the_virtual_clock(steady: Path, cached: Path) -> None:
    schedule = {"schedules": [{"name": "weekly", "cron": "0 2 * * 1", "time_zone": "Europe/Berlin"}]}
    result = played(steady, cached, Settings(with_optimum=False), triggers=schedule)
    assert [f"{r.planned_at:%a %H:%M}" for r in result.counted] == ["Mon 01:00"] * 3
    assert result.fired == {"schedule": 3}


def test_a_cooldown_is_waited_for_and_woken_from(drifting: Path, cached: Path) -> None:
    guards = {"cooldown": "60h"}
    result = played(drifting, cached, Settings(with_optimum=False), triggers={"volume": {"rows": 150}}, guards=guards)
    planned, ended = [r.planned_at for r in result.counted], [r.ended_at for r in result.retrainings]
    assert planned[0] - (ended[0] or planned[0]) == timedelta(hours=60)
    assert "cooling_down" in result.reasons
    assert "Woken" in {s.event_kind for s in result.steps}


def test_what_was_measured_and_trained_serves_the_next_run(drifting: Path, tmp_path: Path) -> None:
    policy = stream.policy()
    history = open_history(str(drifting), policy.data)
    cold, warm = Backtests(history, Settings(), Cache(tmp_path)), Backtests(history, Settings(), Cache(tmp_path))
    one, two = cold.run(policy, "it"), warm.run(policy, "it")
    assert one.steps == two.steps
    assert (one.scores, one.optimum) == (two.scores, two.optimum)
    assert cold.trainings > 0
    assert warm.trainings == 0
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".json"]


def test_a_broken_cache_is_as_none(drifting: Path, tmp_path: Path) -> None:
    policy = stream.policy()
    history = open_history(str(drifting), policy.data)
    one = Backtests(history, Settings(with_optimum=False), Cache(tmp_path)).run(policy, "it")
    for file in tmp_path.rglob("*.json"):
        file.write_text("{")
    two = Backtests(history, Settings(with_optimum=False), Cache(tmp_path)).run(policy, "it")
    assert one.steps == two.steps


def test_a_history_without_keys_is_joined_by_made_ones(tmp_path: Path, cached: Path) -> None:
    import pyarrow.parquet as pq

    for day in range(8):
        name = f"2025-01-{day + 1:02}.parquet"
        pq.write_table(stream.rows(day, turned=False, count=60).drop_columns("id"), tmp_path / name)
    result = played(tmp_path, cached)
    assert result.served
    assert any("accuracy" in step.detail for step in result.steps)


def test_what_does_not_fit_the_history_is_told(steady: Path, cached: Path) -> None:
    with pytest.raises(ConfigError, match="write --warmup 1 to 23"):
        played(steady, cached, Settings(warmup=24))
    with pytest.raises(ConfigError, match="does not measure ndcg_at_10; write one of accuracy"):
        played(steady, cached, gate={"metric": "ndcg_at_10"})


def test_labels_later_than_predictions_are_kept_are_warned_of(steady: Path) -> None:
    policy = stream.policy()
    history = open_history(str(steady), policy.data)
    assert unjoined(policy, history.delayed(timedelta(days=3))) == ""
    assert "write data.predictions.batches: 5 or more" in unjoined(policy, history.delayed(timedelta(days=4)))


# --- the command ---

YAML = """
model: stream
data:
  prefix: data/stream/
  timestamp: at
  columns:
    x: { kind: numerical, test: wasserstein, threshold: 0.3 }
    y: { kind: numerical, test: wasserstein, threshold: 0.3 }
  predictions: { prefix: predictions/stream/, key: id, prediction: predicted, label: label, metric: accuracy }
windows: { reference: { of: training, batches: 5 }, current: { batches: 4 }, training_batches: 5 }
triggers: { drift: { share: 0.5 }, performance: { drop: 0.2, labels_min: 100 } }
guards: { cooldown: 12h }
costs: { execution: 20, error: 1, currency: EUR }
action: { candidates: [{ name: tree }], holdout_share: 0.2 }
gate: { metric: accuracy, min_gain: -1.0 }
backtest: { family: logistic_regression }
"""


def test_the_command_compares_policies_and_writes_them_for_machines(
    drifting: Path, cached: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    one, other, out = tmp_path / "one.yaml", tmp_path / "never.yaml", tmp_path / "out.json"
    one.write_text(YAML)
    other.write_text("\n".join(line for line in YAML.splitlines() if not line.startswith("triggers")))
    given = ["backtest", str(one), "--history", str(drifting), "--compare", str(other), "--cache", str(cached)]
    assert main([*given, "--json", str(out)]) == 0
    told = json.loads(out.read_text())["results"]
    assert [(r["name"], r["model"]) for r in told] == [("one", "stream"), ("never", "stream")]
    assert len(told[0]["decisions"]) > 50
    assert "never" in capsys.readouterr().out


def test_the_command_says_what_to_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.yaml").write_text(YAML)
    assert main(["backtest", str(tmp_path / "p.yaml"), "--history", str(tmp_path / "none")]) == 2
    assert "does not exist; name a file" in capsys.readouterr().err
