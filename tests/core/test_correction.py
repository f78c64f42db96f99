"""The three corrections are what their papers say, and where nothing has changed the year's budget holds for each."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from retrainer.core import triggers
from retrainer.core.events import EvidenceMeasured
from retrainer.core.evidence import ColumnDrift, Evidence
from retrainer.core.policy import Correction
from retrainer.core.rules import asked
from retrainer.core.state import ModelState
from tests.core.transcript import policy_with

CHANCE = 0.05 / 365
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = ModelState(model="m")


def columns(p_values: Sequence[float]) -> tuple[ColumnDrift, ...]:
    return tuple(
        ColumnDrift(column=f"c{n}", test="psi", score=1.0, threshold=0.2, drifted=True, p_value=p)
        for n, p in enumerate(p_values)
    )


def found(p_values: Sequence[float], correction: str, state: ModelState = FIRST) -> list[str]:
    """The columns that count at this measurement; the first may spend a day's worth of the year's 0.05."""
    policy = policy_with(f'triggers = {{"drift": {{"rows_min": 1, "correction": "{correction}"}}}}')
    event = EvidenceMeasured(effect="m-1.measure", evidence=Evidence(rows=1000, drift=columns(p_values)))
    met = asked(policy, replace(state, evidence=event.evidence), event, NOW).met
    return re.findall(r"\bc\d+\b", met[0].why) if met else []


def adjusted(p_values: Sequence[float], correction: str) -> list[float]:
    """The p-values after the correction, as scipy has it; Holm's by its definition."""
    if correction != "holm":
        return [float(p) for p in stats.false_discovery_control(p_values, method=correction)]
    order = np.argsort(p_values, kind="stable")
    made = np.maximum.accumulate(np.array(p_values)[order] * (len(p_values) - np.arange(len(p_values))))
    result = np.empty(len(p_values))
    result[order] = made
    return result.tolist()


@pytest.mark.parametrize("correction", ["holm", "bh", "by"])
@given(st.lists(st.floats(min_value=0, max_value=20 * CHANCE), min_size=1, max_size=30))
def test_the_columns_that_count_are_those_of_the_paper(correction: str, p_values: list[float]) -> None:
    after = adjusted(p_values, correction)
    expected = {f"c{n}" for n, p in enumerate(after) if p <= CHANCE * (1 - 1e-9)}
    possible = {f"c{n}" for n, p in enumerate(after) if p <= CHANCE * (1 + 1e-9)}
    assert expected <= set(found(p_values, correction)) <= possible


@pytest.mark.parametrize("correction", ["holm", "bh", "by"])
@pytest.mark.parametrize("together", [0.0, 0.5, 0.95])
def test_where_nothing_has_changed_a_measurement_alarms_no_oftener_than_it_may(
    correction: Correction, together: float
) -> None:
    """3,000 measurements of 20 columns that are correlated so; a day may spend more here, so that there is something
    to count."""
    rng, share = np.random.default_rng(5), 0.05
    common, own = rng.normal(size=(3_000, 1)), rng.normal(size=(3_000, 20))
    p_values = stats.norm.sf(np.sqrt(together) * common + np.sqrt(1 - together) * own)
    alarms = [bool(triggers._certain(columns(row), share, correction)) for row in p_values.tolist()]
    assert np.mean(alarms) <= share + 3 * np.sqrt(share * (1 - share) / len(alarms))


def test_what_an_hour_may_spend_is_an_hours_part_of_the_year() -> None:
    state = ModelState(model="m", drift_checked_at=NOW - timedelta(hours=1))
    hourly = 0.05 / (365 * 24)
    for p_value, counts in ((hourly * (1 - 1e-9), 1), (hourly * (1 + 1e-9), 0)):
        assert len(found([p_value], "bh", state)) == counts
