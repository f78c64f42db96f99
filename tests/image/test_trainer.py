"""The trainer's image as SageMaker runs it: /opt/ml mounted, one word as its argument, no network."""

import json
import re
import time
from pathlib import Path

import pytest

from tests.image.engine import ROOT, Engine
from tests.trainer.conftest import cycle, lay_out, pack, write_parquet
from tests.trainer.families import FAMILIES, laid_out
from trainer.artefact import NAMES, load
from trainer.contract import Paths
from trainer.serve import answer

ASK = """
import urllib.request as u
body = b'{"instances": [{"history": [1000, 1001]}], "k": 3}'
ask = u.Request("http://127.0.0.1:8080/invocations", body, {"Content-Type": "application/json"})
print(u.urlopen("http://127.0.0.1:8080/ping").status, u.urlopen(ask).read().decode())
"""
NATIVE = (
    """echo '#include <Python.h>' | gcc -x c - -shared -fPIC -o /tmp/x.so """
    """-I$(python -c 'import sysconfig; print(sysconfig.get_path("include"))')"""
)


@pytest.fixture(scope="module")
def trained(engine: Engine, trainer: str, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A training job that has ended."""
    paths = lay_out(Paths(tmp_path_factory.mktemp("train")), {"model": "sasrec", "epochs": "2", "generation": "1"})
    ended = engine.run(trainer, "train", options=("--volume", f"{paths.base}:/opt/ml"))
    assert ended.code == 0, ended.err
    assert re.search(r"\bndcg_at_10=([0-9.eE+-]+);", ended.out)
    return paths


def test_the_command_line_runs(engine: Engine, trainer: str) -> None:
    ended = engine.run(trainer, "--help")
    assert ended.code == 0, ended.err
    assert "train|serve|evaluate" in ended.out
    print(f"trainer: {engine.inspect(trainer)['Size'] / 1e6:.0f} MB")  # noqa: T201


def test_training_writes_a_model_that_names_its_revision_and_its_machine(trained: Paths) -> None:
    assert sorted(path.name for path in trained.model.iterdir()) == sorted([*NAMES, "code"])
    manifest = load(trained.model).manifest
    assert manifest["git_revision"] == "0123abc"
    assert manifest["hardware"]["torch"].startswith("2.13.0")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_trains_in_it(engine: Engine, trainer: str, family: str, tmp_path: Path) -> None:
    paths, request = laid_out(family, tmp_path)
    ended = engine.run(trainer, "train", options=("--volume", f"{paths.base}:/opt/ml"))
    assert ended.code == 0, ended.err
    assert len(answer(load(paths.model), request)["predictions"]) == len(request["instances"])


def test_evaluation_takes_the_archive_of_that_model(
    engine: Engine, trainer: str, trained: Paths, tmp_path: Path
) -> None:
    given = tmp_path / "processing" / "input"
    pack(trained.model, given / "challenger" / "job-1" / "output" / "model.tar.gz")
    (given / "champion").mkdir()
    (given / "champion" / "none.json").write_text("{}")
    write_parquet(given / "train" / "train.parquet", cycle())
    write_parquet(given / "holdout" / "holdout.parquet", cycle(seed=1))
    ended = engine.run(trainer, "evaluate", options=("--volume", f"{tmp_path}:/opt/ml"))
    assert ended.code == 0, ended.err
    said = json.loads((tmp_path / "processing" / "evaluation" / "evaluation.json").read_text())
    assert "job-1" in json.dumps(said)


def test_serving_answers_from_that_model(engine: Engine, trainer: str, trained: Paths) -> None:
    container = engine.start(trainer, "serve", options=("--volume", f"{trained.base}:/opt/ml:ro"))
    deadline = time.monotonic() + 60
    while (said := engine.execute(container, "python", "-c", ASK)).code and time.monotonic() < deadline:
        time.sleep(0.5)
    ended = engine.stop(container, seconds=20)
    assert said.out.startswith("200 "), (said.err, ended.err)
    assert len(json.loads(said.out[4:])["predictions"][0]["items"]) == 3
    assert ended.code == 0, ended.err


def test_every_entry_point_of_the_state_machine_is_in_it(engine: Engine, trainer: str) -> None:
    definition = (ROOT / "deploy" / "statemachine" / "retraining.asl.json").read_text()
    entry_points = [json.loads(found) for found in re.findall(r'"ContainerEntrypoint": (\[.*?\])', definition)]
    assert ["python", "-m", "steps.preprocess"] in entry_points
    for program, *arguments in entry_points:
        ended = engine.run(trainer, *arguments, "--help", options=("--entrypoint", program))
        assert ended.code == 0, ended.err
        assert "--execution" in ended.out


def test_triton_can_build_its_launchers(engine: Engine, trainer: str) -> None:
    ended = engine.shell(trainer, NATIVE)
    assert ended.code == 0, ended.err
