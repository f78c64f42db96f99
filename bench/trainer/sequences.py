"""MovieLens-100K, the next item: leave-one-out, rolling, and what a warm start saves (`splits.py` says how it is cut).

Full ranking of all items, those of the history taken out; nDCG@10 over all cases, as `trainer.ranking` counts it. CPU
seconds are of the training job, from reading its rows to the arrays of its model: without imports, and without ranking
the test. The settings were chosen on the validation rows of both splits; the test rows are looked at by `rows` alone.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from bench.trainer import splits
from bench.trainer.measured import MOVIELENS_100K, Row, seconds_into
from trainer import artefact, ease, ranking, recommender, recommender_numpy
from trainer.contract import Paths, StopRequest
from trainer.data import Interactions
from trainer.families import Job, Trained
from trainer.manifest import moment
from trainer.popularity import popularity, recent_popularity
from trainer.ranking import Ranker

SEEDS = range(3)
SETTINGS = recommender.Hyperparameters(
    epochs=12, dropout=0.35, batch_windows=16, validation_share=0.0, interruption_seconds=1e9
)
CLOSED: dict[str, Callable[[Interactions], Ranker]] = {
    "popularity": popularity,
    "recent popularity": recent_popularity,
    "EASE, Steck's own": lambda train: ease.fit(train, ease.Hyperparameters(regularisation=400.0, halflife=1e6)),
    "EASE, weighted towards the end": lambda train: ease.fit(train, ease.Hyperparameters()),
}


def rows() -> Iterator[Row]:
    torch.set_num_threads(1)
    ratings = splits.read(MOVIELENS_100K)
    leave_one_out, rolling = splits.leave_one_out(ratings), splits.rolling(ratings)
    last, later = (
        ranking.cases_of(leave_one_out.train, leave_one_out.test),
        ranking.cases_of(rolling.train, rolling.test),
    )
    new = replace(later, users=[user for user in later.users if user.position_C[0] == 0])
    yield from _quality(leave_one_out.train, {"ML-100K leave-one-out": last})
    yield from _quality(rolling.train, {"ML-100K rolling next item": later, "ML-100K rolling, new users only": new})
    yield from _warm_start("ML-100K warm start", rolling)


def _quality(train: Interactions, cases: dict[str, ranking.Cases]) -> Iterator[Row]:
    """One training, measured on one or several sets of cases: `{task: cases}`."""
    for name, fit in CLOSED.items():
        cpu_seconds: list[float] = []
        with seconds_into(cpu_seconds):
            model = fit(train)
        for task, chosen in cases.items():
            yield Row(task=task, model=name, metric="nDCG@10", values=[_ndcg(model, chosen)], cpu_seconds=cpu_seconds)
    names, cpu_seconds = {"sasrec": SETTINGS.blend, "sasrec, transformer alone": 0.0}, []
    found = {(task, name): Row(task=task, model=name, metric="nDCG@10") for task in cases for name in names}
    for seed in SEEDS:
        with seconds_into(cpu_seconds):
            trained = _trained(train, replace(SETTINGS, seed=seed))
        for (task, name), row in found.items():
            config = trained.config | {"blend": names[name]}
            row.values.append(_ndcg(recommender_numpy.load(trained.arrays, config), cases[task]))
            row.cpu_seconds = cpu_seconds
    yield from found.values()


def _warm_start(task: str, split: splits.Split) -> Iterator[Row]:
    """The champion has learnt the older nine tenths of the training rows; both others take in the newest tenth."""
    cases = ranking.cases_of(split.train, split.test)
    older = split.train.rows(slice(0, len(split.train) * 9 // 10))
    names = ("champion, not retrained", "from scratch", "warm start")
    frozen, scratch, warm = (Row(task=task, model=name, metric="nDCG@10") for name in names)
    for seed in SEEDS:
        p = replace(SETTINGS, seed=seed)
        with seconds_into(frozen.cpu_seconds):
            champion = _model(_trained(older, p))
        frozen.values.append(_ndcg(champion.predictor, cases))
        for row, start in ((scratch, None), (warm, champion)):
            with seconds_into(row.cpu_seconds):
                trained = _trained(split.train, p, start)
            row.values.append(_ndcg(_model(trained).predictor, cases))
    yield from (frozen, scratch, warm)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job(Job):
    start: artefact.Model | None

    def champion(self) -> artefact.Model | None:
        return self.start


def _trained(rows: Interactions, p: recommender.Hyperparameters, start: artefact.Model | None = None) -> Trained:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        paths = Paths(Path(folder))
        paths.channel("train").mkdir(parents=True)
        moments = pa.array(rows.time_N, pa.timestamp("us", tz="UTC"))
        columns = {"user_id": rows.user_N, "item_id": rows.item_N, "timestamp": moments}
        pq.write_table(pa.table(columns), paths.channel("train") / "rows.parquet")
        trained = recommender.train(_Job(p=p, paths=paths, stop=StopRequest(), start=start))
    assert trained is not None, "nobody stopped it"
    return trained


def _model(trained: Trained) -> artefact.Model:
    """As the next job would find it in its champion channel."""
    manifest = {"weights_sha256": "0" * 64, "data": {"last_at": moment(trained.last_at)}}
    return artefact.Model(recommender_numpy.load(trained.arrays, trained.config), trained.config, manifest)


def _ndcg(model: Ranker, cases: ranking.Cases) -> float:
    return ranking.score(model, cases).means(ranking.METRIC_NAMES)["ndcg_at_10"]
