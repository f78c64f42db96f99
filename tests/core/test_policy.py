"""A policy that cannot work is refused with what to write instead."""

import re
from datetime import timedelta

import pytest
from pydantic import ValidationError

from tests.core.transcript import policy_with


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
    ],
)
def test_a_mistake_is_named_with_its_remedy(setting: str, said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        policy_with(setting)


def test_a_time_zone_must_be_one() -> None:
    named = policy_with('triggers.schedules = [{"name": "n", "cron": "0 2 * * *", "time_zone": "Europe/Berlin"}]')
    assert named.triggers.schedules[0].time_zone == "Europe/Berlin"


def test_durations_have_units() -> None:
    assert policy_with("guards.cooldown = 2w").guards.cooldown == timedelta(weeks=2)
    policy = policy_with()
    assert type(policy).model_validate(policy.model_dump()) == policy


def test_hyperparameters_are_strings_as_sagemaker_wants_them() -> None:
    assert policy_with().action.candidates[0].hyperparameters == {"epochs": "3"}
