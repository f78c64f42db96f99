"""What the worker makes of batches: evidence from profiles, from rows only in doubt, and an answer to any data."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from retrainer import judging
from retrainer.adapters.datasets import Datasets
from retrainer.core import record
from retrainer.core.effects import MeasureEvidence, PublishReport
from retrainer.core.evidence import ALL_COLUMNS, PREDICTIONS, ColumnDrift, Evidence
from retrainer.core.policy import Data
from retrainer.core.window import Batch
from retrainer.worker import Worker
from tests.fakes.lake import Lake

COLUMNS = {
    "amount": {"kind": "numerical", "test": "wasserstein", "threshold": 0.1},
    "age": {"kind": "numerical", "test": "psi", "threshold": 0.2},
    "item": {"kind": "categorical", "test": "jensenshannon", "threshold": 0.1},
}


class Engine:
    """In Evidently's place: gives the score that it is told to, and remembers the columns that it is asked about."""

    def __init__(self, score: float) -> None:
        self.given = score
        self.asked: list[tuple[int, int]] = []

    def Windows(self, reference: Any, current: Any) -> Any:  # noqa: N802
        return SimpleNamespace(reference=reference, current=current)

    def score(self, column: Any, windows: Any) -> float:
        self.asked.append((len(windows.reference), len(windows.current)))
        return self.given


@pytest.fixture
def lake() -> Lake:
    return Lake()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    found = Engine(0.5)
    monkeypatch.setitem(sys.modules, judging.EVIDENTLY, cast(Any, found))
    return found


def data(columns: dict[str, Any] = COLUMNS, **more: Any) -> Data:
    declared = {"bucket": "lake", "prefix": "data/m/", "timestamp": "at", "required_columns": ["request"]}
    return Data.model_validate({**declared, "columns": columns, **more})


def rows(seed: int, count: int = 2_000, *, shift: float = 0.0, **changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "request": [f"{seed}-{i}" for i in range(count)],
        "at": [f"2026-01-{1 + seed % 28:02}T00:00:{i % 60:02}Z" for i in range(count)],
        "amount": rng.normal(shift, 1.0, count),
        "age": rng.normal(40, 10, count),
        "item": [f"i{i}" for i in rng.integers(0, 5, count)],
        **changed,
    }


def effect(current: list[Batch], reference: list[Batch] | None = None, **more: Any) -> MeasureEvidence:
    whole: dict[str, Any] = {"predictions": (), "profiles": "profiles/m/", **more}
    return MeasureEvidence(key="m-1.measure", reference=tuple(reference or ()), current=tuple(current), **whole)


def measure(lake: Lake, asked: MeasureEvidence, given: Data | None = None) -> Evidence:
    """By the worker's own door."""
    worker = Worker(cast(Datasets, lake))
    request = f'{{"do":"measure","effect":{record.dump(asked)},"data":{(given or data()).model_dump_json()}}}'
    answer = json.loads(worker.answer(request))
    assert "evidence" in answer, answer
    return worker.measure(asked, given or data())


def named(evidence: Evidence) -> dict[str, ColumnDrift]:
    return {found.column: found for found in evidence.drift}


def test_a_shift_is_found_in_its_column_and_bounded(lake: Lake) -> None:
    reference = [lake.put(f"r{i}", rows(i)) for i in range(10)]
    current = [lake.put("c1", rows(20, shift=1.0)), lake.put("c2", rows(21, shift=1.0))]
    evidence = measure(lake, effect(current, reference))
    found = named(evidence)
    assert {name: c.drifted for name, c in found.items()} == {"amount": True, "age": False, "item": False}
    assert (evidence.rows, evidence.reference_rows) == (4_000, 20_000)
    for column in found.values():
        assert column.low is not None
        assert column.high is not None
        assert column.low <= column.score <= column.high
    assert found["amount"].score == pytest.approx(1.0, abs=0.06)
    assert found["amount"].p_value is not None
    assert found["amount"].p_value < 1e-9
    assert (evidence.began, evidence.ended) == (
        datetime(2026, 1, 21, tzinfo=UTC),
        datetime(2026, 1, 22, 0, 0, 59, tzinfo=UTC),
    )


def test_windows_that_slide_read_each_batch_once_and_not_at_all_after_a_restart(lake: Lake) -> None:
    reference = [lake.put(f"r{i}", rows(i)) for i in range(3)]
    hours = [lake.put(f"h{i}", rows(10 + i)) for i in range(6)]
    worker = Worker(cast(Datasets, lake))
    before = [worker.measure(effect(hours[i : i + 3], reference), data()) for i in range(4)]
    assert sorted(lake.keys_read) == sorted([*(b.key for b in reference), *(b.key for b in reference + hours)])
    lake.read_.clear()
    restarted = Worker(cast(Datasets, lake))
    after = [restarted.measure(effect(hours[i : i + 3], reference), data()) for i in range(4)]
    assert lake.keys_read == []
    assert [replace(e, took_seconds=0) for e in after] == [replace(e, took_seconds=0) for e in before]


def test_only_the_column_in_doubt_is_read_again_and_evidently_decides(lake: Lake, engine: Engine) -> None:
    reference, current = [lake.put("r", rows(1))], [lake.put("c", rows(2, shift=0.3))]
    clear = named(measure(lake, effect(current, reference)))["age"]
    assert engine.asked == []
    lake.read_.clear()
    doubtful = {**COLUMNS, "age": {"kind": "numerical", "test": "psi", "threshold": clear.score}}
    worker = Worker(cast(Datasets, lake))
    found = named(worker.measure(effect(current, reference), data(doubtful)))["age"]
    assert lake.read_ == [("r", ("age",)), ("c", ("age",))]
    assert engine.asked == [(2_000, 2_000)]
    assert (found.score, found.drifted, found.low, found.high) == (0.5, True, None, None)


def test_in_too_many_rows_doubt_is_not_settled(lake: Lake, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, current = [lake.put("r", rows(1))], [lake.put("c", rows(2))]
    score = named(measure(lake, effect(current, reference)))["age"].score
    monkeypatch.setattr(judging, "ROWS_MAX", 3_999)
    doubtful = {"age": {"kind": "numerical", "test": "psi", "threshold": score}}
    found = named(measure(lake, effect(current, reference), data(doubtful)))["age"]
    assert (engine.asked, found.score, found.drifted) == ([], score, True)
    assert found.low is not None


def test_a_batch_that_is_gone_when_its_rows_are_asked_for_leaves_the_profiles_word(lake: Lake, engine: Engine) -> None:
    reference, current = [lake.put("r", rows(1))], [lake.put("c", rows(2))]
    score = named(measure(lake, effect(current, reference)))["age"].score
    lake.batches.clear()
    doubtful = {**COLUMNS, "age": {"kind": "numerical", "test": "psi", "threshold": score}}
    found = named(measure(lake, effect(current, reference), data(doubtful)))["age"]
    assert (engine.asked, found.score) == ([], score)


def test_rows_that_evidently_cannot_take_leave_the_profiles_word(
    lake: Lake, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(column: Any, windows: Any) -> float:
        raise ValueError("autodetected range of [-inf, inf] is not finite")

    monkeypatch.setattr(engine, "score", refuse)
    huge = [lake.put("huge", rows(1, age=[1e300, -1e300] * 1_000))]
    found = named(measure(lake, effect(huge, [lake.put("r", rows(2))])))["age"]
    assert found.drifted
    assert found.low is not None


def test_shares_of_nulls_and_of_unseen_categories_are_told(lake: Lake) -> None:
    reference = [lake.put("r", rows(1))]
    strange = rows(2, amount=[None] * 500 + [1.0] * 1_500, item=["new"] * 200 + [None] * 300 + ["i1"] * 1_500)
    found = named(measure(lake, effect([lake.put("c", strange)], reference)))
    assert (found["amount"].nulls, found["amount"].reference_nulls) == (0.25, 0.0)
    assert (found["item"].nulls, found["item"].unseen) == (0.15, 0.1)


def test_what_cannot_be_used_is_named_by_column(lake: Lake) -> None:
    reference = [lake.put("r", rows(1))]
    current = [
        lake.put("good", rows(2)),
        lake.put("infinite", rows(3, amount=[np.inf] * 3 + [0.0] * 1_997)),
        lake.put("words", rows(4, age=["old"] * 2_000)),
        lake.put("more-words", rows(4, age=["old"] * 2_000)),
        lake.put("plain", rows(5, at=["2026-01-05T00:00:00"] * 2_000)),
        lake.put("mixed", rows(6, at=["2026-01-05T00:00:00", "2026-01-05T00:00:00+01:00"] * 1_000)),
    ]
    evidence = measure(lake, effect(current, reference))
    assert [r.key for r in evidence.refused] == ["words", "more-words", "mixed"]
    assert evidence.rows == 6_000
    assert [(u.column, u.why) for u in evidence.unusable] == [
        ("amount", "3 of 6000 values are infinite"),
        ("age", "words: column 'age' holds string, not numbers, and 1 more batches"),
        ("at", "mixed: column 'at': some of its times have a time zone and some have none"),
        ("at", "the times of 2 batches have a time zone, those of 1 have none"),
    ]
    assert (evidence.began, evidence.ended) == (None, None)
    assert len(evidence.drift) == 3


LOGGED = {
    "prefix": "predictions/m/",
    "key": "request",
    "prediction": "said",
    "label": "item",
    "metric": "accuracy",
    "test": "jensenshannon",
    "threshold": 0.1,
}


def test_predictions_drift_from_the_first_after_the_promotion(lake: Lake) -> None:
    first = [lake.put(f"p{i}", {"request": [f"{i}-{j}" for j in range(500)], "said": ["a", "b"] * 250}) for i in (1, 2)]
    newest = lake.put("p9", {"request": [f"9-{j}" for j in range(500)], "said": ["a"] * 500})
    current = lake.put("c", rows(9))
    asked = effect([current], predictions=(*first, newest), first_predictions=tuple(first))
    evidence = measure(lake, asked, data({}, predictions=LOGGED))
    (found,) = evidence.drift
    assert (found.column, found.test, found.drifted) == (PREDICTIONS, "jensenshannon", True)
    assert evidence.performance is not None
    only_first = replace(asked, predictions=tuple(first))
    assert measure(lake, only_first, data({}, predictions=LOGGED)).drift == ()


def test_the_area_under_the_curve_is_measured_and_estimated(lake: Lake) -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(size=2_000)
    logged = lake.put("p", {"request": [f"1-{i}" for i in range(2_000)], "said": sure})
    current = lake.put("c", rows(1, bought=rng.uniform(size=2_000) < sure))
    metric = {**LOGGED, "label": "bought", "metric": "roc_auc", "test": "psi"}
    evidence = measure(lake, effect([current], predictions=(logged,)), data({}, predictions=metric))
    assert evidence.performance is not None
    assert evidence.estimated is not None
    assert evidence.performance.value == pytest.approx(0.83, abs=0.03)
    assert evidence.estimated.value == pytest.approx(evidence.performance.value, abs=0.02)
    (lost,) = evidence.losses
    assert (lost.key, lost.version, lost.labels) == (current.key, current.version, 2_000)
    assert lost.mean == pytest.approx(1 - evidence.performance.value)


def capture(event: str, given: list[str], answered: list[float]) -> bytes:
    """What an endpoint captured, a request a line, with CSV on both sides."""
    return b"\n".join(
        json.dumps(
            {
                "captureData": {
                    "endpointInput": {"observedContentType": "text/csv", "data": question, "encoding": "CSV"},
                    "endpointOutput": {"observedContentType": "text/csv", "data": str(answer), "encoding": "CSV"},
                },
                "eventMetadata": {"eventId": f"{event}-{i}", "inferenceTime": f"2026-01-02T03:04:{i % 60:02}Z"},
                "eventVersion": "0",
            }
        ).encode()
        for i, (question, answer) in enumerate(zip(given, answered, strict=True))
    )


def test_captured_traffic_is_a_window_and_its_columns_are_watched_by_their_places(lake: Lake) -> None:
    rng = np.random.default_rng(0)

    def traffic(event: str, shift: float) -> Batch:
        given = [f"{x:.4f},{'ab'[i % 2]}" for i, x in enumerate(rng.normal(shift, 1, 1_000))]
        return lake.put(event, capture(event, given, rng.uniform(size=1_000).tolist()))

    watched = {
        "_c1": {"kind": "numerical", "test": "wasserstein", "threshold": 0.3},
        "_c2": {"kind": "categorical", "test": "jensenshannon", "threshold": 0.1},
    }
    declared = {"timestamp": "inference_time", "required_columns": ["event_id"], "format": "capture"}
    torn = lake.put("torn", b'{"captureData": {}')
    asked = effect([traffic("c", 1.0), torn], [traffic("r", 0.0)])
    evidence = measure(lake, asked, data(watched, **declared))
    assert {name: c.drifted for name, c in named(evidence).items()} == {"_c1": True, "_c2": False}
    assert (evidence.rows, evidence.reference_rows, [r.key for r in evidence.refused]) == (1_000, 1_000, ["torn"])
    assert evidence.began == datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    assert evidence.ended == datetime(2026, 1, 2, 3, 4, 59, tzinfo=UTC)


def test_captured_answers_are_predictions_that_drift_and_are_held_against_labels(lake: Lake) -> None:
    rng = np.random.default_rng(0)
    sure = {"first": rng.uniform(size=1_000), "newest": rng.uniform(0.5, 1, 1_000)}
    first, newest = (lake.put(name, capture(name, ["1"] * 1_000, found.tolist())) for name, found in sure.items())
    current = lake.put(
        "c",
        {
            "at": ["2026-01-03T00:00:00Z"] * 1_000,
            "event_id": [f"newest-{i}" for i in range(1_000)],
            "bought": rng.uniform(size=1_000) < sure["newest"],
        },
    )
    logged: dict[str, Any] = {"prefix": "predictions/m/", "key": "event_id", "prediction": "output", "label": "bought"}
    logged |= {"metric": "roc_auc", "test": "psi", "threshold": 0.2, "format": "capture"}
    asked = effect([current], predictions=(first, newest), first_predictions=(first,))
    evidence = measure(lake, asked, data({}, required_columns=["event_id"], predictions=logged))
    (found,) = evidence.drift
    assert (found.column, found.drifted, evidence.refused) == (PREDICTIONS, True, ())
    assert evidence.performance is not None
    assert evidence.performance.labels == 1_000
    assert 0.5 < evidence.performance.value < 0.9


def test_a_label_that_is_missing_refuses_its_batch_once(lake: Lake) -> None:
    logged = lake.put("p", {"request": ["2-1"], "said": ["i1"]})
    bad = lake.put("bad", {name: column for name, column in rows(3).items() if name != "item"})
    evidence = measure(lake, effect([lake.put("c", rows(2)), bad], predictions=(logged,)), data({}, predictions=LOGGED))
    assert (evidence.rows, [r.key for r in evidence.refused]) == (2_000, ["bad"])
    assert evidence.performance is not None
    assert evidence.performance.labels == 1


def test_all_columns_together_are_judged_when_that_is_asked(lake: Lake) -> None:
    reference, current = [lake.put("r", rows(1))], [lake.put("c", rows(2, shift=2.0))]
    found = named(measure(lake, effect(current, reference, classifier=0.7)))[ALL_COLUMNS]
    assert (found.test, found.threshold, found.drifted) == ("classifier", 0.7, True)
    assert 0.8 < found.score <= 1
    assert ALL_COLUMNS not in named(measure(lake, effect(current, reference)))


def test_an_embedding_is_watched_by_what_is_derived_of_it(lake: Lake, engine: Engine) -> None:
    rng = np.random.default_rng(0)

    def vectors(shift: float) -> dict[str, Any]:
        return rows(1, v=(rng.normal(size=(2_000, 8)) + shift).tolist())

    watched = {"v": {"kind": "embedding", "test": "wasserstein", "threshold": 0.2}}
    found = named(measure(lake, effect([lake.put("c", vectors(1.0))], [lake.put("r", vectors(0.0))]), data(watched)))
    assert set(found) == {f"v.{name}" for name in ("norm", "distance", "pc1", "pc2", "pc3", "pc4")}
    assert found["v.distance"].drifted
    assert engine.asked == []


def test_statistics_of_model_monitor_are_a_reference(lake: Lake) -> None:
    common = {"num_present": 1_000, "num_missing": 0}
    buckets = [{"lower_bound": float(i), "upper_bound": float(i + 1), "count": 100.0} for i in range(10)]
    number = {"common": common, "mean": 5.0, "std_dev": 2.9, "min": 0.0, "max": 10.0}
    statistics = {
        "features": [
            {"name": "amount", "numerical_statistics": {**number, "distribution": {"kll": {"buckets": buckets}}}}
        ]
    }
    lake.objects["data/m/baseline/statistics.json"] = json.dumps(statistics).encode()
    baseline = Batch(bucket="lake", key="data/m/baseline/statistics.json", version="", size_bytes=0)
    watched = {"amount": {"kind": "numerical", "test": "wasserstein", "threshold": 0.5}}
    evidence = measure(lake, effect([lake.put("c", rows(1, shift=20.0))], [baseline]), data(watched))
    assert (evidence.reference_rows, [c.drifted for c in evidence.drift]) == (1_000, [True])
    like_it = lake.put("like it", rows(1, amount=np.linspace(0, 10, 2_000)))
    (found,) = measure(lake, effect([like_it], [baseline]), data(watched)).drift
    assert (found.drifted, found.score < 0.01) == (False, True)
    lake.objects.clear()
    gone = measure(lake, effect([lake.put("c", rows(1))], [baseline]), data(watched))
    assert (gone.rows, gone.drift, len(gone.refused)) == (2_000, (), 1)


HOSTILE: dict[str, Any] = {
    "bytes": b"\x00\xff" * 500,
    "nothing": b"",
    "no rows": {name: column[:0] for name, column in rows(1).items()},
    "nulls": rows(1, amount=[None] * 2_000, age=[None] * 2_000, item=[None] * 2_000, at=[None] * 2_000),
    "infinite": rows(1, amount=[np.inf, -np.inf] * 1_000, age=[np.nan] * 2_000),
    "huge": rows(1, amount=[1e308, -1e308] * 1_000, age=[5e-324] * 2_000),
    "one value": rows(1, amount=[1.0] * 2_000, age=[0] * 2_000, item=["x"] * 2_000),
    "flags": rows(1, amount=[True, False] * 1_000, item=[True, None] * 1_000),
    "lists": rows(1, amount=[[1.0]] * 2_000),
    "bytes in columns": rows(1, item=[b"\xff"] * 2_000),
    "long names": rows(1, item=["x" * 100_000] * 10 + ["y"] * 1_990),
    "unique": rows(1, item=[f"id {i}" for i in range(2_000)]),
    "our names": rows(1, item=["(null)", "(rare)", "(other)", None] * 500),
    "times of lists": rows(1, at=[[1]] * 2_000),
    "far times": rows(1, at=np.array([2**62, -(2**62)] * 1_000).astype("datetime64[ms]")),
    "one row": rows(1, count=1),
}


@pytest.mark.parametrize("test", ["psi", "jensenshannon", "wasserstein", "hellinger", "missing", "ks"])
def test_no_data_is_without_an_answer(lake: Lake, engine: Engine, test: str) -> None:
    number = {"kind": "numerical", "test": test, "threshold": 0.1}
    text = {"kind": "categorical", "test": "g_test" if test == "ks" else test, "threshold": 0.1}
    watched = {"amount": number, "age": number, "item": text if test != "wasserstein" else COLUMNS["item"]}
    batches = {name: lake.put(name, columns) for name, columns in HOSTILE.items()}
    good = lake.put("good", rows(2))
    gone = replace(good, key="gone")
    for name, batch in batches.items():
        for reference, current in (([good], [batch]), ([batch], [good]), ([batch], [batch]), ([gone], [batch, gone])):
            evidence = measure(lake, effect(current, reference), data(watched))
            told = record.dump(evidence)
            assert "NaN" not in told, name
            assert "Infinity" not in told, name
    together = list(batches.values())
    whole = measure(lake, effect([*together, good], [good, *together]), data(watched))
    assert whole.rows > 10_000
    assert len(whole.drift) == 3


def test_a_report_is_made_of_profiles_alone(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = SimpleNamespace(page=lambda title, facts, evidence, reference, current: f"<html>{title}")
    monkeypatch.setitem(sys.modules, judging.EVIDENTLY, cast(Any, drawn))
    reference, current = [lake.put("r", rows(1))], [lake.put("c", rows(2, shift=1.0))]
    first, newest = (lake.put(f"p{i}", {"request": [f"{i}-1"] * 500, "said": ["ab"[i]] * 500}) for i in (0, 1))
    told_too: dict[str, Any] = {"predictions": (first, newest), "first_predictions": (first,), "classifier": 0.7}
    measured = measure(lake, effect(current, reference, **told_too), data(predictions=LOGGED))
    lake.batches.clear()
    asked = PublishReport(
        key="m-7.report",
        bucket="lake",
        report_key="reports/m/m-7.html",
        reference=tuple(reference),
        current=tuple(current),
        profiles="profiles/m/",
        **told_too,
    )
    worker = Worker(cast(Datasets, lake))
    assert worker.report(asked, data(predictions=LOGGED)).evidence.drift == measured.drift
    assert {ALL_COLUMNS, PREDICTIONS} < named(measured).keys()
    assert worker.publish(asked, data(predictions=LOGGED)) == "s3://lake/reports/m/m-7.html"
    told = json.loads(lake.objects[asked.json_key])
    assert (told["model"], told["decision"], told["current"]["rows"]) == ("m", "m-7", 2_000)
    assert {ALL_COLUMNS, PREDICTIONS} < {column["column"] for column in told["columns"]}
    assert lake.objects[asked.report_key].startswith(b"<html>")
    assert b"amount" in lake.objects[asked.page_key]
