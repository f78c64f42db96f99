"""``code/inference.py`` of a model archive: the same answers from AWS's own PyTorch image, without this one.

Its contract is the SageMaker PyTorch inference toolkit's: ``sagemaker_inference/transformer.py`` calls these four by
name, and has put code/ on Python's path, where the rest of this package lies too. Content types: JSON both ways.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer import artefact, serve
from trainer.contract import BadRequestError

JSON = "application/json"


def model_fn(model_dir: str) -> artefact.Model:
    return artefact.read(Path(model_dir))


def input_fn(body: bytes | str, content_type: str) -> dict[str, Any]:
    if content_type.split(";")[0].strip() != JSON:
        raise _refusal(BadRequestError(f"the content type is '{content_type}'; give {JSON}"))
    try:
        return serve.request_of(body)
    except BadRequestError as error:
        raise _refusal(error) from error


def predict_fn(request: dict[str, Any], model: artefact.Model) -> dict[str, Any]:
    try:
        return serve.answer(model, request)
    except BadRequestError as error:
        raise _refusal(error) from error


def output_fn(answer: dict[str, Any], _accept: str) -> tuple[str, str]:
    """There is one form, whatever is asked for."""
    return json.dumps(answer, allow_nan=False), JSON


def _refusal(error: BadRequestError) -> Exception:
    """The toolkit answers 500 to every exception but its own."""
    try:
        from sagemaker_inference.errors import GenericInferenceToolkitError
    except ImportError:
        return error
    refusal: Exception = GenericInferenceToolkitError(400, str(error))
    return refusal
