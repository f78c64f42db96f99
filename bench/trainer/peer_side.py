"""The peers' models, run by their own Python: `peer_side.py JOB.json TRAIN.npz FOUND.npz`. Nothing of ours is imported.

The job names a model, its settings and a seed. TRAIN has the training rows in time order (`user_N`, `item_N`) and the
histories to go on from, end to end (`history_N`, of case c from `bound_C[c]` to `bound_C[c + 1]`, `user_C` its user).
FOUND gets the best unseen items of each case (`found_CK`, -1 where there are fewer) and the CPU seconds of fitting,
imports and ranking left out.
"""

import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
K = 10
Prepared = tuple[Callable[[], None], Callable[[], Ints], str]
"""What fits, what ranks then, and the version of whose model it is."""


def main(job_file: str, train_file: str, found_file: str) -> None:
    warnings.simplefilter("ignore")
    job = json.loads(Path(job_file).read_text())
    given = dict(np.load(train_file))
    fit, rank, version = MODELS[job["model"]](job, given)
    began = time.process_time()
    fit()
    seconds = time.process_time() - began
    np.savez(found_file, found_CK=_popular_first(given, rank()), seconds=seconds, version=version)


def _implicit(job: dict[str, Any], given: dict[str, Any]) -> Prepared:
    """ALS, BPR or an item-item model of implicit. `recalculate`: the history is not the one that was trained on."""
    implicit, sparse = importlib.import_module("implicit"), importlib.import_module("scipy.sparse")
    importlib.import_module("threadpoolctl").threadpool_limits(1)
    factors = {"als": implicit.als.AlternatingLeastSquares, "bpr": implicit.bpr.BayesianPersonalizedRanking}
    item_item = {
        "cosine": implicit.nearest_neighbours.CosineRecommender,
        "tfidf": implicit.nearest_neighbours.TFIDFRecommender,
        "bm25": implicit.nearest_neighbours.BM25Recommender,
    }
    settings = dict(job["settings"])
    weight, recalculate = settings.pop("weight", 1.0), settings.pop("recalculate", False)
    random = {"random_state": job["seed"]} if job["model"] in factors else {}
    model = (factors | item_item)[job["model"]](num_threads=1, **random, **settings)

    user_U, row_N = np.unique(given["user_N"], return_inverse=True)
    item_I, column_N = np.unique(given["item_N"], return_inverse=True)

    def fit() -> None:
        ones = np.full(len(row_N), weight, dtype=np.float32)
        model.fit(sparse.csr_matrix((ones, (row_N, column_N)), shape=(len(user_U), len(item_I))), show_progress=False)

    def rank() -> Ints:
        case_N = np.repeat(np.arange(len(given["user_C"])), np.diff(given["bound_C"]))
        known_N = np.isin(given["history_N"], item_I)
        place_N = np.searchsorted(item_I, given["history_N"][known_N])
        shape = (len(given["user_C"]), len(item_I))
        history = sparse.csr_matrix(
            (np.full(len(place_N), weight, np.float32), (case_N[known_N], place_N)), shape=shape
        )
        options = {"recalculate_user": True} if recalculate else {}
        users = np.searchsorted(user_U, given["user_C"]) if not recalculate else np.arange(shape[0])
        place_CK, _ = model.recommend(users, history, N=K, filter_already_liked_items=True, **options)
        return np.where(place_CK >= 0, item_I[place_CK], -1)

    return fit, rank, f"implicit {implicit.__version__}"


def _rectools(job: dict[str, Any], given: dict[str, Any]) -> Prepared:
    """SASRec of RecTools; every case is a user of its own with the case's history."""
    pd, torch = importlib.import_module("pandas"), importlib.import_module("torch")
    dataset, models = importlib.import_module("rectools.dataset"), importlib.import_module("rectools.models")
    lightning = importlib.import_module("pytorch_lightning")
    importlib.import_module("logging").getLogger("pytorch_lightning").setLevel("ERROR")
    torch.set_num_threads(1)
    lightning.seed_everything(job["seed"])

    def table(user_N: Ints, item_N: Ints) -> Any:
        when = pd.Timestamp("2000-01-01") + pd.to_timedelta(np.arange(len(user_N)), unit="s")
        rows = {"user_id": user_N, "item_id": item_N, "datetime": when, "weight": 1.0}
        return dataset.Dataset.construct(pd.DataFrame(rows))

    model = models.SASRecModel(deterministic=True, **job["settings"])

    def fit() -> None:
        model.fit(table(given["user_N"], given["item_N"]))

    def rank() -> Ints:
        found_CK = np.full((len(given["user_C"]), K), -1, dtype=np.int64)
        for first in range(0, len(found_CK), 2_000):
            bound_C = given["bound_C"][first : first + 2_001]
            case_N = np.repeat(np.arange(len(bound_C) - 1) + first, np.diff(bound_C))
            item_N = given["history_N"][bound_C[0] : bound_C[-1]]
            able = np.unique(case_N[np.isin(item_N, given["item_N"])])
            if not len(able):
                continue
            told = model.recommend(able, table(case_N, item_N), k=K, filter_viewed=True)
            found_CK[told["user_id"], told["rank"] - 1] = told["item_id"]
        return found_CK

    return fit, rank, f"RecTools {importlib.import_module('rectools').__version__}"


def _popular_first(given: dict[str, Any], found_CK: Ints) -> Ints:
    """Where a model has no answer, as for a history of items it does not know: the most popular items not yet seen."""
    item_I, count_I = np.unique(given["item_N"], return_counts=True)
    popular_I = item_I[np.argsort(-count_I, kind="stable")]
    for case in np.flatnonzero((found_CK < 0).all(axis=1)):
        history_T = given["history_N"][given["bound_C"][case] : given["bound_C"][case + 1]]
        best_K = popular_I[~np.isin(popular_I, history_T)][:K]
        found_CK[case, : len(best_K)] = best_K
    return found_CK


MODELS = dict.fromkeys(("als", "bpr", "cosine", "tfidf", "bm25"), _implicit) | {"sasrec": _rectools}

if __name__ == "__main__":
    main(*sys.argv[1:])
