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
    epochs=18, dropout=0.4, batch_windows=16, validation_share=0.0, interruption_seconds=1e9
)
WARM = replace(SETTINGS, epochs_warm=3, dropout=0.2)
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
    rolled = list(_quality(rolling.train, {"ML-100K rolling next item": later, "ML-100K rolling, new users only": new}))
    yield from rolled
    scratch = next(row for row in rolled if row.model == "sasrec")
    yield from _warm_start("ML-100K warm start", rolling, later, scratch)


def _quality(train: Interactions, cases: dict[str, ranking.Cases]) -> Iterator[Row]:
    """One training, measured on one or several sets of cases: `{task: cases}`."""
    for name, fit in CLOSED.items():
        cpu_seconds: list[float] = []
        with seconds_into(cpu_seconds):
            model = fit(train)
        for task, chosen in cases.items():
            row = Row(task=task, model=name, metric="nDCG@10", cpu_seconds=cpu_seconds)
            row.add(ranking.score(model, chosen))
            yield row
    cpu_seconds = []
    found = {task: Row(task=task, model="sasrec", metric="nDCG@10", cpu_seconds=cpu_seconds) for task in cases}
    note = "the same weights with blend 0"
    alone = {task: Row(task=task, model="sasrec, transformer alone", metric="nDCG@10", note=note) for task in cases}
    for seed in SEEDS:
        with seconds_into(cpu_seconds):
            trained = _trained(train, replace(SETTINGS, seed=seed))
        for row_of, blend in ((found, SETTINGS.blend), (alone, 0.0)):
            model = recommender_numpy.load(trained.arrays, trained.config | {"blend": blend})
            for task, row in row_of.items():
                row.add(ranking.score(model, cases[task]))
    yield from (*found.values(), *alone.values())


def _warm_start(task: str, split: splits.Split, cases: ranking.Cases, scratch: Row) -> Iterator[Row]:
    """The champion has learnt the older nine tenths of the training rows; the warm start takes in the newest tenth."""
    older = split.train.rows(slice(0, len(split.train) * 9 // 10))
    frozen, warm = (Row(task=task, model=name, metric="nDCG@10") for name in ("champion, not retrained", "warm start"))
    for seed in SEEDS:
        with seconds_into(frozen.cpu_seconds):
            champion = _model(_trained(older, replace(SETTINGS, seed=seed)))
        frozen.add(ranking.score(champion.predictor, cases))
        with seconds_into(warm.cpu_seconds):
            trained = _trained(split.train, replace(WARM, seed=seed), champion)
        warm.add(ranking.score(_model(trained).predictor, cases))
    yield from (frozen, warm, replace(scratch, task=task, model="from scratch", note="as in rolling next item"))


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
