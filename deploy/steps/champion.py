"""Who is the champion, and who may become it: the champion pointer and the fence beside it.

Two small objects, both written conditionally. The *fence* (`champions/<model>.fence.json`) is taken before the
endpoint is touched and only ever moves to a higher generation, so a late, older execution finds it closed. The
*pointer* (`champions/<model>.json`) is written only after the endpoint was seen serving the new model, so it never
names a model that does not serve: a roll-back needs no undo. A crash between the two leaves an endpoint that is
ahead of its pointer; `resolve` sees that (the endpoint serves the fence's configuration) and finishes the writing.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from steps import names
from steps.errors import FenceBusyError
from steps.objects import Document, code_of, read_document, replace_document

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient

ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """The pointer's and the fence's content; `generation` counts up a model's decisions."""

    model: str
    generation: int
    model_package_arn: str
    model_data_url: str
    endpoint_config: str
    execution: str


def read(s3: "S3Client", bucket: str, model: str) -> Champion | None:
    return _champion(read_document(s3, names.champion(bucket, model)))


def resolve(s3: "S3Client", sagemaker: "SageMakerClient", bucket: str, model: str) -> Champion | None:
    """The champion, after finishing a promotion whose execution died between serving and saying so."""
    known = read(s3, bucket, model)
    fenced = _champion(read_document(s3, names.fence(bucket, model)))
    ahead = fenced is not None and (known is None or known.generation < fenced.generation)
    if fenced is None or not ahead or serving_config(sagemaker, model) != fenced.endpoint_config:
        return known
    crown(s3, bucket, fenced)
    return read(s3, bucket, model)


def close_fence(s3: "S3Client", bucket: str, challenger: Champion, judged_against: int) -> str | None:
    """Take the fence for the challenger; None when it was taken, else one sentence saying who is in the way.

    `judged_against` is the generation of the champion the gate compared with (0: none). The pointer is read *after* the
    fence is ours: whoever is crowned later than that finds the fence closed.
    """
    for _ in range(ATTEMPTS):
        seen = read_document(s3, names.fence(bucket, challenger.model))
        holder = _champion(seen)
        other = holder is not None and holder.execution != challenger.execution
        if holder is not None and other and holder.generation >= challenger.generation:
            return f"Generation {holder.generation} took the fence before generation {challenger.generation}."
        if holder == challenger or replace_document(
            s3, names.fence(bucket, challenger.model), asdict(challenger), seen
        ):
            return _judged_in_vain(read(s3, bucket, challenger.model), challenger, judged_against)
    raise FenceBusyError(f"The fence of {challenger.model} changed {ATTEMPTS} times while it was taken.")


def crown(s3: "S3Client", bucket: str, challenger: Champion) -> str | None:
    """Point to the challenger, which serves; None when done, else one sentence saying who came later."""
    for _ in range(ATTEMPTS):
        seen = read_document(s3, names.champion(bucket, challenger.model))
        known = _champion(seen)
        if known == challenger:
            return None
        holder = _champion(read_document(s3, names.fence(bucket, challenger.model)))
        later = [c for c in (known, holder) if c is not None and c.generation > challenger.generation]
        if later:
            return f"Generation {later[0].generation} came while generation {challenger.generation} was promoted."
        if replace_document(s3, names.champion(bucket, challenger.model), asdict(challenger), seen):
            return None
    raise FenceBusyError(f"The pointer of {challenger.model} changed {ATTEMPTS} times while it was written.")


def serving_config(sagemaker: "SageMakerClient", model: str) -> str | None:
    """The endpoint configuration that is in service, None when nothing serves or a change is under way."""
    try:
        endpoint = sagemaker.describe_endpoint(EndpointName=model)
    except ClientError as error:
        if is_missing(error):
            return None
        raise
    return endpoint.get("EndpointConfigName") if endpoint["EndpointStatus"] == "InService" else None


def is_missing(error: ClientError) -> bool:
    """SageMaker answers a Describe of an unknown name with ResourceNotFound or, of an endpoint or a group, with
    ValidationException and "Could not find ..." or "... does not exist"."""
    message = str(error.response.get("Error", {}).get("Message", "")).lower()
    return code_of(error).startswith("ResourceNotFound") or "could not find" in message or "not exist" in message


def _judged_in_vain(known: Champion | None, challenger: Champion, judged_against: int) -> str | None:
    generation = 0 if known is None else known.generation
    if known is not None and known.execution == challenger.execution:
        return None
    if generation != judged_against:
        return (
            f"Generation {challenger.generation} was compared with generation {judged_against}, "
            f"but generation {generation} is the champion by now."
        )
    return None


def _champion(document: Document | None) -> Champion | None:
    return None if document is None else Champion(**document.body)
