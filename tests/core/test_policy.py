"""A policy that cannot work is refused with what to write instead."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from retrainer.core import plan
from retrainer.core.state import ModelState
from retrainer.core.window import Batch
from retrainer.drift import derived
from tests.core.transcript import policy_with

BATCH = Batch(bucket="b", key="data/m/a.parquet", version="1", size_bytes=10, rows=5)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("guards.cooldown = soon", "'soon' is not a duration; write a number and a unit, as in 90s"),
        ("guards.cooldown = 6", "6 is not a duration"),
        ("guards.cooldown = 99999999999h", "'99999999999h' is not a duration"),
        ("guards.cooldown = 3651d", "'3651d' is longer than ten years; write at most 3650d"),
        ("guards.cooldwon = 6h", "Extra inputs are not permitted"),
        ('data.columns = {"x": {"kind": "categorical", "test": "ks", "threshold": 0.1}}', "test ks is for numerical"),
        (
            'data.columns = {"x": {"kind": "numerical", "test": "chisquare", "threshold": 0.1}}',
            "for categorical columns",
        ),
        ("data.columns = {}", "triggers.drift needs data.columns"),
        ("data.predictions = null", "triggers.performance needs data.predictions"),
        ('triggers.performance = {"labels_min": 5}', "performance needs drop, limit or both"),
        ('triggers.schedules = [{"name": "n", "cron": "soon"}]', "'soon' is not a cron expression"),
        ('triggers.schedules = [{"name": "n", "cron": "0 0 2 * * *"}]', "is not a cron expression of five fields"),
        ('triggers.schedules = [{"name": "n", "cron": "61 2 * * *"}]', "is not a cron expression ("),
        ('triggers.schedules = [{"name": "n", "cron": "0 2 * * *", "time_zone": "Mars/X"}]', "is not a time zone"),
        (
            'triggers.schedules = [{"name": "n", "cron": "0 2 * * *"}, {"name": "n", "cron": "0 3 * * *"}]',
            "schedule names must differ",
        ),
        ('action.candidates = [{"name": "a"}, {"name": "a"}]', "candidate names must differ"),
        ('action.candidates = [{"name": "a", "hyperparameters": 3}]', "valid dictionary"),
        ('action.candidates = [{"name": "a", "hyperparameters": {"x": [1]}}]', "x is not one value; write a text or a"),
        ('action.candidates = [{"name": "a", "hyperparameters": {"x": null}}]', "x is not one value"),
        ("action.poll = 0s", "write 1s or longer"),
        ('action.timeouts = {"training": "0s"}', "training must be 1s to 28d"),
        ('action.timeouts = {"training": "3h"}', "wait includes the training"),
        ("model = Recommender", "should match pattern"),
        ('data.columns = {"x": {"kind": "numerical", "threshold": 0.1}}', "write test: too, as in test: psi"),
        ('data.columns = {"x": {"kind": "numerical"}}', "triggers.drift needs data.columns: name the columns to watch"),
        (
            'data.columns = {"x": {"kind": "numerical", "role": "target"}, '
            '"y": {"kind": "numerical", "role": "target"}}',
            "columns x, y all have the role target",
        ),
        ('windows.reference = {"of": "fixed"}', "of: fixed needs keys, as in"),
        ('windows.reference = {"keys": ["data/a"]}', "keys are for of: fixed, and this is of: training"),
        (
            'windows.reference = {"of": "fixed", "keys": ["models/a"]}',
            "windows.reference.keys has models/a, which is not under data/",
        ),
        ('windows.reference = {"of": "monitor"}', "of: monitor needs one key, as in keys: [data/m/baseline/"),
        (
            'windows.reference = {"of": "fixed", "keys": ["data/a"], "season": "hour"}',
            "season is for batches that arrived",
        ),
        ('windows.reference = {"time_zone": "Europe/Berlin"}', "time_zone is for season, which is not declared"),
        ('windows.reference = {"season": "hour", "time_zone": "Mars/X"}', "is not a time zone"),
        ('data.columns.x.test = "unseen"', "test unseen is for categorical columns; write psi, jensenshannon, wass"),
        (
            'data.columns.y = {"kind": "categorical", "test": "missing", "threshold": 5}',
            "threshold 5 of missing is a share",
        ),
        ('data.columns.x = {"kind": "image", "role": "target"}', "an image is nothing that is predicted here"),
        ('data.columns.x = {"kind": "embedding", "test": "chisquare"}', "test chisquare is for categorical columns"),
        (
            'data.columns = {"a": {"kind": "image", "test": "psi"}, "a.width": {"kind": "numerical", "test": "psi"}}',
            "a.width is what is measured of a already; leave the test of one of them out",
        ),
        ("data.predictions.test = ks", "test ks is for numerical columns; write psi, jensenshannon, hellinger, TVD"),
        ("data.predictions.threshold = 0.1", "threshold is for a drift test; write test: too"),
        ("triggers.drift.classifier = 0.5", "greater than 0.5"),
        ("triggers.drift.correction = bonferroni", "Input should be 'holm', 'bh' or 'by'"),
        ('windows.current = {"rows": 5, "batches": 3}', "batches and rows are two measures of one window"),
        ('windows.current = {"time": "0s"}', "0s is no time at all"),
        ("triggers.drift.clear = 0.6", "clear 0.6 is above share 0.5; write a smaller clear"),
        ('triggers.drift = {"clear": 0.6}', "clear is below share, which is not declared"),
        ("triggers.performance.clear = 0.2", "clear 0.2 is above drop 0.1; write a smaller clear"),
        ('triggers.performance = {"limit": 0.5, "clear": 0.2}', "clear is below drop, which is not declared"),
        ("triggers.performance.estimated = true", "triggers.performance.estimated needs data.predictions.confidence"),
        ("triggers.regret = {}", "triggers.regret needs a price: write price: there, or costs.error"),
        ('triggers.when = "drifts"', "when names drifts, which is not declared; write one of drift, performance"),
        ('triggers.when = "drift"', "performance is declared, and when does not name it"),
        ('triggers.when = {"all": []}', "at least 1 item"),
        ('triggers.when = {"some": ["drift"]}', "valid string"),
        (
            'triggers.when = {"of": "drift", "at_least": 3, "windows": 2}',
            "at_least 3 of 2 windows can never be; write fewer",
        ),
        (
            'triggers.when = {"of": {"of": "drift", "at_least": 1, "windows": 2}, "at_least": 1, "windows": 2}',
            "of counts measurements and cannot count counts",
        ),
        (
            'triggers.when = {"of": "alarm:a", "at_least": 1, "windows": 2}',
            "alarm:a is no measurement and cannot be counted; write drift or performance or regret or concept or",
        ),
        ("triggers.when = " + '{"any": [' * 7 + '"drift"' + "]}" * 7, "rules lie more than 6 deep"),
        ('guards.quiet_hours = [{"from": "22", "to": "06:00"}]', "'22' is not a time of day; write hours and minutes"),
        ('guards.quiet_hours = [{"from": "22:00", "to": "22:00"}]', "these hours leave no time of the week"),
        (
            'guards.quiet_hours = [{"from": "00:00", "to": "12:00"}, '
            '{"from": "12:00", "to": "01:00", "time_zone": "Etc/GMT"}]',
            "these hours leave no time of the week; write fewer, or pause the model",
        ),
        ('guards.freezes = [{"from": "soon", "to": "2026-01-02", "why": "x"}]', "'soon' is neither a day nor a moment"),
        (
            'guards.freezes = [{"from": "2026-01-01T00:00:00", "to": "2026-01-02", "why": "x"}]',
            "2026-01-01T00:00:00 has no time zone; write 2026-01-01T00:00:00Z",
        ),
        ('guards.freezes = [{"from": "2026-01-03", "to": "2026-01-02", "why": "x"}]', "before it begins"),
        ('guards.freezes = [{"from": "2026-01-03", "to": "9999-12-31", "why": "x"}]', "write a year from 1970 to 9000"),
        ('guards.budget = {"period": "1d"}', "a budget needs executions, money or both"),
        ('guards.budget = {"money": 5, "period": "1d"}', "guards.budget.money needs costs: what an execution costs"),
        ("guards.fleet = {}", "fleet needs concurrency, budget or both"),
        ('guards.backoff = {"first": "31d"}', "first is longer than most"),
        ('guards.after = ["m"]', "guards.after names m itself, which would wait for ever"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(setting: str, said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        policy_with(setting)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            (
                'data.predictions.confidence = "c"',
                'data.predictions.metric = "mae"',
                "triggers.performance.estimated = true",
            ),
            "accuracy and roc_auc can be estimated, mae cannot",
        ),
        (
            ("costs.execution = 7", 'guards.fleet.budget = {"money": 5, "period": "1d"}'),
            "guards.fleet.budget.money 5 is less than one execution costs, 7; write more",
        ),
        (("costs.execution = 7", "triggers.regret = {}"), "triggers.regret needs a price"),
        (
            ('data.predictions.metric = "roc_auc"', 'triggers.regret = {"price": 1}'),
            "triggers.regret adds up what each row lost, and roc_auc is of no single row",
        ),
        (
            ("data.predictions = null", "triggers.performance = null", "triggers.concept = {}"),
            "triggers.concept needs data.predictions",
        ),
        (
            ('data.predictions.metric = "hit_rate_at_10"', 'data.predictions.test = "psi"'),
            "predictions of hit_rate_at_10 are lists, which no test compares; leave test out",
        ),
        (
            ('data.predictions.metric = "roc_auc"', 'data.predictions.test = "chisquare"'),
            "test chisquare is for categorical columns",
        ),
        (
            ("data.columns = {}", 'data.predictions.test = "psi"', "triggers.drift.classifier = 0.7"),
            "triggers.drift.classifier needs data.columns",
        ),
        (
            (
                'windows.reference = {"of": "monitor", "keys": ["data/m/statistics.json"]}',
                "triggers.drift.classifier = 0.7",
            ),
            "triggers.drift.classifier needs the rows of the reference",
        ),
        (
            (
                'windows.reference = {"of": "monitor", "keys": ["data/m/statistics.json"]}',
                'data.columns.x = {"kind": "image", "test": "psi"}',
            ),
            "which knows no image as x is",
        ),
    ],
)
def test_two_settings_that_do_not_fit_are_named_with_the_remedy(settings: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        policy_with(*settings)


def test_a_time_zone_must_be_one() -> None:
    named = policy_with('triggers.schedules = [{"name": "n", "cron": "0 2 * * *", "time_zone": "Europe/Berlin"}]')
    assert named.triggers.schedules[0].time_zone == "Europe/Berlin"


def test_a_column_is_watched_if_it_names_a_test_and_has_that_tests_threshold_by_default() -> None:
    data = policy_with(
        'data.columns = {"x": {"kind": "numerical", "test": "psi"}, "y": {"kind": "categorical", "role": "target"}, '
        '"id": {"kind": "categorical", "role": "ignored"}}'
    ).data
    assert list(data.watched) == ["x"]
    assert data.watched["x"].threshold == 0.2
    assert data.target == "y"
    assert data.features == ("x",)
    assert policy_with('data.columns.y.role = "ignored"').data.target is None


@pytest.mark.parametrize(
    ("metric", "kind"), [("accuracy", "categorical"), ("roc_auc", "numerical"), ("mae", "numerical")]
)
def test_predictions_are_watched_as_what_their_metric_makes_of_them(metric: str, kind: str) -> None:
    logged = policy_with(f"data.predictions.metric = {metric}", "data.predictions.test = psi").data.predictions
    assert logged
    assert logged.watched
    assert (logged.watched.kind, logged.watched.test, logged.watched.threshold) == (kind, "psi", 0.2)
    assert logged.threshold == 0.2
    unwatched = policy_with().data.predictions
    assert unwatched
    assert unwatched.watched is None


def test_the_area_under_the_curve_is_estimated_without_another_column_for_it() -> None:
    policy = policy_with('data.predictions.metric = "roc_auc"', "triggers.performance.estimated = true")
    assert policy.triggers.performance
    assert policy.triggers.performance.estimated


def test_an_image_and_an_embedding_are_measured_as_several_columns() -> None:
    data = policy_with(
        'data.columns = {"photo": {"kind": "image", "test": "psi"}, "text": {"kind": "embedding", "test": "ks"}, '
        '"x": {"kind": "numerical", "test": "psi"}}'
    ).data
    assert list(data.measured) == derived.names({name: column.kind for name, column in data.watched.items()})
    assert data.measured["photo.width"] is data.columns["photo"]


def test_drift_may_be_of_the_predictions_alone() -> None:
    assert policy_with("data.columns = {}", "data.predictions.test = psi").triggers.drift


@pytest.mark.parametrize(
    "test", ["psi", "jensenshannon", "hellinger", "TVD", "missing", "unseen", "chisquare", "g_test"]
)
def test_categories_may_be_watched_by_any_test_for_them(test: str) -> None:
    assert policy_with(f"data.columns.y.test = {test}").data.watched["y"].threshold


def test_the_current_window_is_eight_batches_if_nothing_is_said() -> None:
    assert policy_with("windows.current = {}").windows == policy_with().windows
    assert policy_with().windows.current.batches == 8


@pytest.mark.parametrize(
    "setting",
    [
        'guards.quiet_hours = [{"from": "22:00", "to": "06:00", "days": ["sat", "sun"], "time_zone": "Europe/Berlin"}]',
        'guards.freezes = [{"from": "2026-12-20", "to": "2026-12-24T12:00:00+01:00", "why": "x"}]',
        'triggers.when = {"all": ["drift", {"of": "performance", "at_least": 1, "windows": 3}], "within": "90m"}',
        'triggers.schedules = [{"name": "n", "cron": "0 2 * * *", "misfire_grace": "0s"}]',
    ],
)
def test_what_was_read_is_written_as_it_may_be_read_again(setting: str) -> None:
    policy = policy_with(setting)
    assert type(policy).model_validate_json(policy.model_dump_json()) == policy
    assert type(policy).model_validate(policy.model_dump()) == policy


def test_durations_have_units() -> None:
    assert policy_with("guards.cooldown = 2w").guards.cooldown == timedelta(weeks=2)
    policy = policy_with()
    assert type(policy).model_validate(policy.model_dump()) == policy


@pytest.mark.parametrize("number", ["Infinity", "NaN"])
def test_a_number_that_cannot_be_written_down_is_refused(number: str) -> None:
    for setting in ("gate.min_gain", "action.input"):
        with pytest.raises(ValidationError, match="finite number"):
            policy_with(f"{setting} = {number}" if setting == "gate.min_gain" else f'{setting} = {{"a": {number}}}')


def test_a_candidate_may_be_called_refit_where_no_other_training_job_is() -> None:
    called = 'action.candidates = [{"name": "refit"}]'
    assert policy_with(called).action.candidates[0].name == "refit"
    with pytest.raises(ValidationError, match="write another name"):
        policy_with(called, "action.refit = true")


def test_the_state_machine_is_told_how_to_roll_out_whom_to_tell_and_what_the_policy_adds() -> None:
    policy = policy_with(
        'action.input = {"team": "search", "retries": 2}', "rollout.bake = 10m", 'notify.on = ["failed"]'
    )
    state, now = ModelState(model="m", window=(BATCH,)), datetime(2026, 1, 1, tzinfo=UTC)
    planned = plan.execution(policy, state, "request:r", "m-1", now)
    given = json.loads(plan.start(policy, state, planned).input)
    assert given["input"] == {"team": "search", "retries": 2}
    assert given["rollout"] == {"canary_percent": 10, "bake_seconds": 600, "alarms": []}
    assert given["notify"] == ["failed"]


def test_hyperparameters_are_strings_as_sagemaker_wants_them() -> None:
    assert policy_with().action.candidates[0].hyperparameters == {"epochs": "3"}
