"""A file of cases is cases or mistakes told with their place, whatever was put there."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrainer import cases, wiring
from retrainer.adapters import schedules
from retrainer.ports import ConfigError
from tests.hostile.budget import examples

HERE = Path(__file__).parents[1] / "policies" / "cases"
GOOD = (HERE / "churn.cases.txt").read_text()
POLICY = wiring.load_policy(HERE / "churn.yaml")
_PIECES = st.sampled_from(
    ["->", "case:", "time zone:", ",", '"', "#", "\t", "\n", "0.5", "1e999", "nan", "-1", "99:99", "+999999w", "drift"]
) | st.text(max_size=20)


@examples(80)
@given(piece=_PIECES, start=st.integers(0, len(GOOD)), length=st.integers(0, 30))
def test_whatever_is_written_into_cases_they_run_or_are_told_as_mistakes(piece: str, start: int, length: int) -> None:
    text = GOOD[:start] + piece + GOOD[start + length :]
    try:
        found = cases.read(Path("c"), text)
    except ConfigError as mistakes:
        said = str(mistakes).splitlines()
    else:
        said = [
            f"c:{cases.told('c', result, found.zone, POLICY)}" for result in cases.run(found, POLICY, schedules.due)
        ]
    assert all(line.startswith("c:") for line in said)


@pytest.mark.parametrize("step", ["9999-12-31 23:59", "+999999w", "0001-01-01 00:00"])
def test_a_time_that_there_is_not_is_a_mistake(step: str) -> None:
    found = cases.read(Path("c"), f"case: a\n  2026-01-01 00:00 champion promoted\n  {step} (time passes)\n")
    (result,) = cases.run(found, POLICY, schedules.due)
    assert result.mistake
