"""One small model of every family, trained for real through the files, and a request that it can answer."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from trainer import train
from trainer.contract import Paths, StopRequest

from .conftest import cycle, write_parquet

RECOMMEND = {"instances": [{"history": [1010, 1011]}, {"history": []}], "k": 4}


def laid_out(family: str, folder: Path) -> tuple[Paths, dict[str, Any]]:
    """A training job's input, and a request for the model that comes of it."""
    write, hyperparameters, request = FAMILIES[family]
    paths = Paths(folder / family)
    paths.channel("train").mkdir(parents=True)
    paths.hyperparameters.parent.mkdir(parents=True)
    write(paths.channel("train") / "train.parquet")
    paths.hyperparameters.write_text(json.dumps({"model": family, "generation": "3", **hyperparameters}))
    return paths, request


def trained(family: str, folder: Path) -> tuple[Paths, dict[str, Any]]:
    paths, request = laid_out(family, folder)
    assert train.main(paths, StopRequest()) == 0
    return paths, request


def _interactions(file: Path) -> None:
    write_parquet(file, cycle())


def _flights(file: Path) -> None:
    x = np.random.default_rng(0).normal(size=600)
    late = np.where(x > 0, "yes", "no")
    pq.write_table(pa.table({"timestamp": _moments(600), "x": x, "late": late}), file)


def _signs(file: Path) -> None:
    shown = [_sign(bright) for bright in (40, 200)] * 40
    pq.write_table(pa.table({"timestamp": _moments(80), "image": shown, "label": ["dark", "light"] * 40}), file)


def _sign(bright: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (8, 8), bright).save(stream, "PNG")
    return stream.getvalue()


def _moments(rows: int) -> pa.Array:
    return pa.array(np.arange(rows) * 1_000_000, pa.timestamp("us", tz="UTC"))


Write = Callable[[Path], None]
FAMILIES: dict[str, tuple[Write, dict[str, str], dict[str, Any]]] = {
    "ease": (_interactions, {}, RECOMMEND),
    "sasrec": (_interactions, {"epochs": "1", "dimension": "16"}, RECOMMEND),
    "tabular": (_flights, {"label": "late", "numerical": "x"}, {"instances": [{"x": 1.5}, {"x": None}]}),
    "cnn": (
        _signs,
        {"pixels": "8", "colour": "grey", "width": "4", "epochs": "1", "batch_rows": "16"},
        {"instances": [{"image": base64.b64encode(_sign(190)).decode()}]},
    ),
}
