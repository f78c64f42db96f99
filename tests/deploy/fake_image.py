"""A stand-in for the trainer image: keeps the container contract, learns nothing, is done in milliseconds.

    python fake_image.py train|evaluate|serve

Hyperparameters: `score` is the metric it will be given, `fail` makes training fail with this message, `serves` makes a
model that does not come up, `seconds` is how long training takes, `refit` what it says as it fails with a holdout to
learn from. A model.tar.gz holds score.txt.
"""

import http.server
import io
import json
import os
import sys
import tarfile
import time
from pathlib import Path

BASE = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/fake:1"


def command() -> list[str]:
    return [sys.executable, str(Path(__file__).resolve())]


def train() -> None:
    given = json.loads((BASE / "input/config/hyperparameters.json").read_text())
    assert (BASE / "input/data/train/train.parquet").is_file()
    assert list((BASE / "input/data/champion").iterdir())
    with_holdout = (BASE / "input/data/holdout/holdout.parquet").is_file()
    if failure := given.get("fail") or (with_holdout and given.get("refit")):
        (BASE / "output").mkdir(exist_ok=True)
        (BASE / "output/failure").write_text(failure)
        raise SystemExit(1)
    time.sleep(float(given.get("seconds", "0")))
    (BASE / "model").mkdir(exist_ok=True)
    (BASE / "model/score.txt").write_text(given["score"])
    if "serves" in given:
        (BASE / "model/broken.txt").touch()


def evaluate() -> None:
    inputs = BASE / "processing/input"
    assert (inputs / "holdout/holdout.parquet").is_file()
    champion = inputs / "champion/model.tar.gz"
    found = [
        {
            "job": path.parts[-3],
            "model_data": f"models/{path.parts[-3]}/output/model.tar.gz",
            "metrics": scored(path),
            "against_champion": against(path, champion) if champion.exists() else None,
        }
        for path in sorted((inputs / "challenger").rglob("model.tar.gz"))
        if is_whole(path)
    ]
    document = {
        "version": 1,
        "rows": 1,
        "cases": 1,
        "metric_names": ["ndcg_at_10"],
        "challengers": found,
        "champion": {"metrics": scored(champion)} if champion.exists() else None,
        "baselines": {"popularity": {"metrics": {"ndcg_at_10": {"value": 0.05, "low": 0.0, "high": 0.1}}}},
    }
    target = BASE / "processing/evaluation/evaluation.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(document))
    (target.parent / "model_quality").mkdir(exist_ok=True)
    for entry in found:
        report = {"ranking_metrics": {"ndcg_at_10": {"value": 0.1, "standard_deviation": 0.01}}}
        (target.parent / f"model_quality/{entry['job']}.json").write_text(json.dumps(report))


def against(challenger: Path, champion: Path) -> dict[str, object]:
    """A gain that was the same half of it, or once and a half it, in turn."""
    gain = scored(challenger)["ndcg_at_10"]["value"] - scored(champion)["ndcg_at_10"]["value"]
    told = {"difference": gain, "low": gain / 2, "high": gain * 1.5, "probability_better": float(gain > 0)}
    return {"ndcg_at_10": told | {"resampled": [gain / 2, gain * 1.5] * 500}}


def is_whole(archive: Path) -> bool:
    """SageMaker uploads what a stopped job left in its model directory too, which may be nothing."""
    with tarfile.open(archive) as tar:
        return any(name.endswith("score.txt") for name in tar.getnames())


def scored(archive: Path) -> dict[str, dict[str, float]]:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(next(m for m in tar.getmembers() if m.name.endswith("score.txt")))
        assert file is not None
        value = float(file.read())
    return {"ndcg_at_10": {"value": value, "low": value, "high": value}}


def archive(score: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("score.txt")
        member.size = len(score)
        tar.addfile(member, io.BytesIO(score.encode()))
    return buffer.getvalue()


class Ping(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def serve() -> None:
    """A model with a broken.txt, or with that for a score, never comes up."""
    if (BASE / "model/broken.txt").exists() or (BASE / "model/score.txt").read_text() == "broken":
        raise SystemExit(1)
    address = (os.environ["SAGEMAKER_BIND_TO_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"]))
    http.server.ThreadingHTTPServer(address, Ping).serve_forever()


if __name__ == "__main__":
    {"train": train, "evaluate": evaluate, "serve": serve}[sys.argv[1]]()
