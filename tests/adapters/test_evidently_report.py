"""Evidently's tests on the windows that defeat them: each quirk has a defined answer, and nothing else is changed."""

import importlib
import re
import time
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest

from retrainer.core.evidence import ColumnDrift
from retrainer.core.policy import Column, Test, data
from retrainer.drift import columns
from retrainer.drift.profile import Sample

pytestmark = pytest.mark.system  # importing Evidently takes as long as starting a process


OURS = {"missing", "unseen"}
"""Tests that Evidently does not have; profiles tell their scores exactly."""

NUMERICAL = ("psi", "jensenshannon", "wasserstein", "hellinger", "ks")
CATEGORICAL = ("psi", "jensenshannon", "hellinger", "TVD", "chisquare", "g_test")
KINDS = [*(("numerical", t) for t in NUMERICAL), *(("categorical", t) for t in CATEGORICAL)]
RNG = np.random.default_rng(7)
NORMAL = RNG.normal(size=20_000)
LIKE = RNG.normal(size=2_000)
SHIFTED = RNG.normal(1.0, 1.0, size=2_000)
LETTERS = np.array(list("abcd"), dtype=object)
EVEN = LETTERS[RNG.integers(0, 4, 20_000)]
EVEN_TOO = LETTERS[RNG.integers(0, 4, 2_000)]
SKEWED = LETTERS[RNG.choice(4, 2_000, p=[0.7, 0.1, 0.1, 0.1])]


@pytest.fixture(scope="module")
def engine() -> Iterator[ModuleType]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("retrainer.adapters.evidently_report")
    yield module
    # Evidently opens an event loop when it is imported, and never closes it.
    importlib.import_module("evidently.legacy.utils.sync")._loop.close()


def measured(engine: ModuleType, kind: str, test: str, reference: Any, current: Any) -> ColumnDrift:
    declared = Column(kind=kind, test=test, threshold=0.001 if test in columns.P_VALUES else 0.1)  # type: ignore[arg-type]
    dtype = np.float64 if kind == "numerical" else object
    windows = engine.Windows(np.asarray(reference, dtype=dtype), np.asarray(current, dtype=dtype))
    return columns.verdict("x", declared, engine.score(declared, windows), 1.0)


def value_drift(kind: str, test: str, reference: Any, current: Any) -> float:
    """What Evidently's own public metric says."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(**{f"{kind}_columns": ["x"]})
    new, old = (Dataset.from_pandas(pd.DataFrame({"x": x}), definition) for x in (current, reference))
    snapshot = Report([ValueDrift(column="x", method=test, threshold=0.1)]).run(new, old)
    return float(snapshot.dict()["metrics"][0]["value"])


def test_every_test_a_policy_can_name_is_tried_here() -> None:
    assert set(get_args(Test)) == {test for _, test in KINDS} | OURS


@pytest.mark.parametrize(("kind", "test"), [found for found in KINDS if found[1] != "TVD"])
def test_ordinary_windows_have_the_score_of_evidently(engine: ModuleType, kind: str, test: str) -> None:
    windows = (NORMAL, SHIFTED) if kind == "numerical" else (EVEN, SKEWED)
    if test == "g_test":  # which Evidently can compute for windows of one size only
        windows = (EVEN[:2_000], SKEWED)
    ours = measured(engine, kind, test, *windows)
    assert ours.drifted
    assert ours.score == pytest.approx(value_drift(kind, test, *windows), rel=1e-9, abs=1e-300)


def test_total_variation_is_the_distance_and_not_a_chance(engine: ModuleType) -> None:
    assert measured(
        engine, "categorical", "TVD", ["a"] * 30 + ["b"] * 70, ["a"] * 5 + ["b"] * 5
    ).score == pytest.approx(0.2)


@pytest.mark.parametrize(("kind", "test"), KINDS)
def test_windows_of_one_distribution_have_not_drifted(engine: ModuleType, kind: str, test: str) -> None:
    windows = (NORMAL, LIKE) if kind == "numerical" else (EVEN, EVEN_TOO)
    assert not measured(engine, kind, test, *windows).drifted


@pytest.mark.parametrize(("kind", "test"), KINDS)
def test_a_current_window_of_nulls_has_drifted(engine: ModuleType, kind: str, test: str) -> None:
    reference: Any = NORMAL if kind == "numerical" else EVEN
    nothing = np.full(500, None, dtype=object)
    assert measured(engine, kind, test, reference, nothing).drifted
    assert measured(engine, kind, test, nothing, reference).drifted
    assert not measured(engine, kind, test, nothing, nothing).drifted


@pytest.mark.parametrize(("kind", "test"), KINDS)
def test_a_null_share_from_0_to_40_percent_has_drifted(engine: ModuleType, kind: str, test: str) -> None:
    whole: Any = NORMAL if kind == "numerical" else EVEN
    holed = (LIKE if kind == "numerical" else EVEN_TOO).astype(object)
    holed[:800] = None
    assert measured(engine, kind, test, whole, holed).drifted


@pytest.mark.parametrize("test", NUMERICAL)
def test_a_few_nulls_more_or_less_have_not_drifted(engine: ModuleType, test: str) -> None:
    holed, more = NORMAL.copy(), LIKE.copy()
    holed[:1_000], more[:110] = np.nan, np.nan
    assert not measured(engine, "numerical", test, holed, more).drifted
    more = LIKE.copy()
    more[0] = np.nan
    assert not measured(engine, "numerical", test, NORMAL, more).drifted


@pytest.mark.parametrize("test", NUMERICAL)
def test_one_outlier_neither_hides_a_shift_nor_is_one(engine: ModuleType, test: str) -> None:
    for outlier in (1e9, np.inf):
        assert measured(engine, "numerical", test, NORMAL, [*SHIFTED[1:], outlier]).drifted
        assert measured(engine, "numerical", test, [*NORMAL[1:], outlier], SHIFTED).drifted
        assert not measured(engine, "numerical", test, NORMAL, [*LIKE[1:], outlier]).drifted


@pytest.mark.parametrize("test", NUMERICAL)
@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_unit_of_a_feature_does_not_matter(engine: ModuleType, test: str, scale: float) -> None:
    scaled = measured(engine, "numerical", test, NORMAL * scale, SHIFTED * scale)
    assert scaled.drifted
    assert scaled.score == pytest.approx(measured(engine, "numerical", test, NORMAL, SHIFTED).score, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("kind", "test"), KINDS)
def test_constants_have_drifted_if_they_differ(engine: ModuleType, kind: str, test: str) -> None:
    same, other = (1.0, 2.0) if kind == "numerical" else ("a", "b")
    assert not measured(engine, kind, test, [same] * 2000, [same] * 500).drifted
    assert measured(engine, kind, test, [same] * 2000, [other] * 500).drifted


@pytest.mark.parametrize("test", NUMERICAL)
def test_one_other_value_in_a_constant_column_is_no_drift(engine: ModuleType, test: str) -> None:
    assert not measured(engine, "numerical", test, [1.0] * 2000, [1.0] * 1999 + [2.0]).drifted


@pytest.mark.parametrize("test", CATEGORICAL)
def test_one_unknown_category_in_2000_rows_is_no_drift_and_100_are(engine: ModuleType, test: str) -> None:
    assert not measured(engine, "categorical", test, EVEN, [*EVEN_TOO[1:], "new"]).drifted
    assert measured(engine, "categorical", test, EVEN, [*EVEN_TOO[300:], *["new"] * 300]).drifted


def test_chisquare_has_no_opinion_on_a_window_of_four_rows(engine: ModuleType) -> None:
    assert measured(engine, "categorical", "chisquare", EVEN, ["a", "a", "a", "a"]).score == 1.0


@pytest.mark.parametrize("test", NUMERICAL)
def test_a_numerical_column_of_zeros_and_ones_can_be_measured(engine: ModuleType, test: str) -> None:
    assert not measured(engine, "numerical", test, NORMAL > 0, LIKE > 0).drifted
    assert measured(engine, "numerical", test, NORMAL > 0, SHIFTED > 0).drifted


@pytest.mark.parametrize("test", CATEGORICAL)
def test_nine_thousand_categories_are_measured_in_a_second(engine: ModuleType, test: str) -> None:
    ids = np.array([str(i) for i in range(9_000)], dtype=object)
    began = time.process_time()
    measured(engine, "categorical", test, ids[RNG.zipf(1.2, 50_000) % 9_000], ids[RNG.zipf(1.3, 2_000) % 9_000])
    assert time.process_time() - began < 1.0


def sample(columns: dict[str, Any]) -> Sample:
    count = len(next(iter(columns.values())))
    return Sample(np.arange(count, dtype=np.uint64), {name: np.asarray(held) for name, held in columns.items()})


def found(column: str, test: str, score: float = 0.5) -> ColumnDrift:
    return ColumnDrift(column=column, test=test, score=score, threshold=0.1, drifted=True, p_value=1e-9)


def test_the_page_opens_without_a_network_and_says_what_was_decided(engine: ModuleType) -> None:
    ids = np.array([str(i) for i in range(2_000)], dtype=object)
    drift = (found("amount", "wasserstein"), found("gone", "psi", 18.42), found("item <b>", "jensenshannon"))
    reference = {"amount": NORMAL[:5_000], "gone": NORMAL[:5_000], "item <b>": ids[RNG.integers(0, 2_000, 5_000)]}
    current = {"amount": SHIFTED, "gone": np.full(2_000, np.nan), "item <b>": ids[RNG.integers(0, 2_000, 2_000)]}
    page = engine.page("m-7", ["2 rows & more"], drift, sample(reference), sample(current))
    loaded = re.findall(r"""(?:src|srcset|<link[^>]*href)\s*=\s*["']?(?:https?:)?//[^"'\s>]+""", page)
    assert not loaded
    assert not re.findall(r"url\(\s*['\"]?(?:https?:)?//", page)
    assert "<h1>m-7</h1><p>2 rows &amp; more</p>" in page
    assert "amount</td><td>wasserstein</td>" in page
    assert "gone</td><td>psi</td><td>18.4" in page
    assert "item &lt;b&gt;</td>" in page
    assert "Drift in column 'amount'" in page


DRAWN = [("numerical", test) for test in data.NUMERICAL] + [("categorical", test) for test in data.CATEGORICAL]


@pytest.mark.parametrize(("kind", "test"), DRAWN)
def test_a_column_of_any_test_is_drawn(engine: ModuleType, kind: str, test: str) -> None:
    reference, current = (NORMAL, SHIFTED) if kind == "numerical" else (EVEN, SKEWED)
    page = engine.page("m-7", [], (found("x", test),), sample({"x": reference[:900]}), sample({"x": current[:900]}))
    assert len(page) > 1_000_000, "Evidently has drawn nothing"


def test_a_category_or_a_name_cannot_end_the_script_it_is_written_in(engine: ModuleType) -> None:
    strange = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>"
    letters = np.array(["a", "b", strange], dtype=object)
    reference, current = (letters[RNG.integers(0, n, 900)] for n in (3, 2))
    drift = (found("item", "psi"), found(strange, "psi"))
    both = [sample({"item": held, strange: held}) for held in (reference, current)]
    page = engine.page(strange, [strange], drift, *both)
    assert "<script>document.title" not in page
    assert "<img src=x" not in page


def test_of_a_wide_table_the_first_columns_are_drawn_and_all_are_listed(engine: ModuleType) -> None:
    names = [f"c{n}" for n in range(engine.COLUMNS_MAX + 2)]
    both = [sample(dict.fromkeys(names, held)) for held in (NORMAL[:200], LIKE[:200])]
    page = engine.page("m-7", [], tuple(found(name, "ks") for name in names), *both)
    assert f"Drift in column '{names[0]}'" in page
    assert f"Drift in column '{names[-1]}'" not in page
    assert f"{names[-1]}</td><td>ks</td>" in page


def test_without_measured_columns_the_page_is_the_facts(engine: ModuleType) -> None:
    page = engine.page("m-7", ["1 batch"], (), sample({"x": NORMAL[:9]}), sample({"x": LIKE[:9]}))
    assert "<p>1 batch</p>" in page
    assert len(page) < 1_000
