"""code/inference.py of an archive as AWS's own PyTorch image runs it: code/ on Python's path, and nothing of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trainer import artefact, serve
from trainer.contract import BadRequestError

from . import families
from .conftest import pack

# What the toolkit does with each request, for as many as there are arguments: (content type, body).
TOOLKIT = """
import json, sys
import inference
model = inference.model_fn(sys.argv[1])
said = []
for kind, body in json.loads(sys.argv[2]):
    try:
        request = inference.input_fn(body, kind)
        said.append(inference.output_fn(inference.predict_fn(request, model), "*/*"))
    except Exception as error:
        said.append((str(error), type(error).__name__))
print(json.dumps({"said": said, "trainer": inference.artefact.__file__}))
"""
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Asked:
    """An archive unpacked in ``unpacked``, what its code/ said to each request, and our own answer to the first."""

    unpacked: Path
    trainer: Path
    said: list[tuple[str, str]]
    ours: dict[str, Any]


@pytest.fixture(scope="module", params=sorted(families.FAMILIES))
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    folder = tmp_path_factory.mktemp("job")
    paths, good = families.trained(request.param, folder)
    with tarfile.open(pack(paths.model, folder / "model.tar.gz")) as tar:
        tar.extractall(folder / "ml")  # noqa: S202 - made by this test
    for left in ("code/__pycache__", ".sagemaker"):  # by an image, beside the model: no reason to refuse it
        (folder / "ml" / left).mkdir()
    requests = [(JSON, json.dumps(good)), (JSON, "{"), (JSON, '{"instances": [3]}'), ("text/csv", "1,2")]
    ended = subprocess.run(
        [sys.executable, "-c", TOOLKIT, str(folder / "ml"), json.dumps(requests)],
        cwd=folder,  # PYTHONPATH comes before site-packages, so before an editable install of this repository
        env=os.environ | {"PYTHONPATH": str(folder / "ml" / "code")},
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(ended.stdout)
    ours = serve.answer(artefact.load(paths.model), good)
    return Asked(folder / "ml", Path(told["trainer"]), [tuple(said) for said in told["said"]], ours)


def test_the_archive_alone_answers_as_our_own_endpoint_does(asked: Asked) -> None:
    assert asked.trainer == asked.unpacked / "code" / "trainer" / "artefact.py"
    answer, kind = asked.said[0]
    assert kind == JSON
    assert json.loads(answer) == json.loads(json.dumps(asked.ours))
    assert asked.ours["model"]["generation"] == 3


def test_a_bad_request_is_told_what_to_send(asked: Asked) -> None:
    for (said, kind), wanted in zip(
        asked.said[1:], ("not JSON", "instances[0] must be", "give application/json"), strict=True
    ):
        assert wanted in said
        assert kind == BadRequestError.__name__


def test_the_requirements_are_the_trainers_own_but_for_torch() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    wanted = [line for line in project["optional-dependencies"]["trainer"] if not line.startswith("torch")]
    assert artefact.REQUIREMENTS.splitlines() == wanted
