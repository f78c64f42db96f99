"""Deploys a SAM template into the embedded AWS, as `sam deploy` does into AWS: expand, upload, create or update.

The expansion is AWS's own (samtranslator), so what runs here is what CloudFormation would get.
"""

import hashlib
import io
import json
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

REGION = "us-east-1"
TEMPLATE_BODY_BYTES = 51_200  # CreateStack's limit; larger templates go through S3
LOOK_SECONDS = 0.1
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold; the same content gives the same bytes
GONE = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"}


class ProvisionError(RuntimeError):
    """The stack could not be made; the message names each resource that failed and why."""


def provision(
    endpoint_url: str,
    template: Path,
    parameters: Mapping[str, str],
    *,
    stack: str = "retrainer",
    code: Mapping[str, Sequence[Path]] | None = None,
    seconds: float = 120.0,
) -> dict[str, str]:
    """Creates or updates the stack and returns its outputs; doing it again changes nothing.

    A function's CodeUri is a directory beside the template, unless `code` says what lies at that CodeUri: files and
    directories that are packed under their own names. A state machine's DefinitionUri is a file beside the template.
    """
    aws = _Clients(endpoint_url)
    bucket = _deployment_bucket(aws.s3, stack)
    source = load(template)
    _upload_artifacts(aws.s3, bucket, source, template.parent, code or {})
    body = json.dumps(expand(source, parameters), separators=(",", ":"))
    _apply(aws, bucket, stack, body, parameters, time.monotonic() + seconds)
    found = aws.cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}


def load(template: Path) -> dict[str, Any]:
    """The template with YAML's short forms (`!Ref`, `!Sub`) written out."""
    from samtranslator.yaml_helper import yaml_parse

    parsed: dict[str, Any] = yaml_parse(template.read_text())
    return parsed


def expand(source: dict[str, Any], parameters: Mapping[str, str]) -> dict[str, Any]:
    """AWS::Serverless resources as CloudFormation ones; needs no network."""
    from samtranslator.metrics.metrics import DummyMetricsPublisher, Metrics
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    session = boto3.Session(region_name=REGION)
    metrics = Metrics(metrics_publisher=DummyMetricsPublisher())
    translator = Translator(managed_policy_map={}, sam_parser=Parser(), boto_session=session, metrics=metrics)
    expanded: dict[str, Any] = translator.translate(source, parameter_values=dict(parameters))
    metrics.publish()  # to nobody; unpublished ones are complained about at exit
    return expanded


def pack(paths: Sequence[Path], *, beside: bool = False) -> bytes:
    """A zip whose bytes depend on the content alone; `beside` puts a directory's content at the root."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(_entries(paths, beside=beside)):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    return packed.getvalue()


def _entries(paths: Sequence[Path], *, beside: bool) -> Iterator[tuple[str, Path]]:
    for path in paths:
        if path.is_file():
            yield path.name, path
            continue
        root = path if beside else path.parent
        for found in path.rglob("*"):
            if found.is_file() and "__pycache__" not in found.parts:
                yield found.relative_to(root).as_posix(), found


class _Clients:
    def __init__(self, endpoint_url: str) -> None:
        session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)  # noqa: S106
        self.endpoint_url = endpoint_url
        self.s3: Any = session.client("s3", endpoint_url=endpoint_url)
        self.cloudformation: Any = session.client("cloudformation", endpoint_url=endpoint_url)


def _deployment_bucket(s3: Any, stack: str) -> str:
    name = f"{stack}-deployment-local"
    try:
        s3.head_bucket(Bucket=name)
    except ClientError:
        s3.create_bucket(Bucket=name)
    return name


def _upload_artifacts(
    s3: Any, bucket: str, source: dict[str, Any], directory: Path, code: Mapping[str, Sequence[Path]]
) -> None:
    """Replaces local CodeUri and DefinitionUri by where they were uploaded to, named by their content."""
    default = source.get("Globals", {}).get("Function", {}).pop("CodeUri", None)
    for name, resource in source["Resources"].items():
        properties = resource.setdefault("Properties", {})
        if resource["Type"] == "AWS::Serverless::Function" and "InlineCode" not in properties:
            uri = properties.get("CodeUri", default)
            if not isinstance(uri, str):
                raise ProvisionError(f"{name} has no CodeUri")
            content = pack(code[uri]) if uri in code else pack([_existing(directory / uri, name)], beside=True)
            properties["CodeUri"] = _upload(s3, bucket, content, "zip")
        if resource["Type"] == "AWS::Serverless::StateMachine" and isinstance(properties.get("DefinitionUri"), str):
            definition = _existing(directory / properties["DefinitionUri"], name).read_bytes()
            properties["DefinitionUri"] = _upload(s3, bucket, definition, "json")


def _existing(path: Path, resource: str) -> Path:
    if not path.exists():
        raise ProvisionError(f"{resource} refers to {path}, which does not exist")
    return path


def _upload(s3: Any, bucket: str, content: bytes, suffix: str) -> dict[str, str]:
    key = f"{hashlib.sha256(content).hexdigest()}.{suffix}"
    s3.put_object(Bucket=bucket, Key=key, Body=content)
    return {"Bucket": bucket, "Key": key}


def _apply(aws: _Clients, bucket: str, stack: str, body: str, parameters: Mapping[str, str], deadline: float) -> None:
    request: dict[str, Any] = {
        "StackName": stack,
        "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    }
    if len(body) > TEMPLATE_BODY_BYTES:
        place = _upload(aws.s3, bucket, body.encode(), "template.json")
        request["TemplateURL"] = f"{aws.endpoint_url}/{place['Bucket']}/{place['Key']}"
    else:
        request["TemplateBody"] = body
    status = _status(aws.cloudformation, stack)
    if status in GONE:
        aws.cloudformation.delete_stack(StackName=stack)
        status = _settled(aws.cloudformation, stack, deadline)
    if status is None:
        aws.cloudformation.create_stack(**request)
    else:
        _settled(aws.cloudformation, stack, deadline)
        try:
            aws.cloudformation.update_stack(**request)
        except ClientError as error:
            if "No updates are to be performed" not in str(error):
                raise
            return
    status = _settled(aws.cloudformation, stack, deadline)
    if status not in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
        raise ProvisionError(f"stack {stack} ended in {status}:\n{_reasons(aws.cloudformation, stack)}")


def _status(cloudformation: Any, stack: str) -> str | None:
    try:
        status: str = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return None if status == "DELETE_COMPLETE" else status


def _settled(cloudformation: Any, stack: str, deadline: float) -> str | None:
    while (status := _status(cloudformation, stack)) is not None and status.endswith("_IN_PROGRESS"):
        if time.monotonic() > deadline:
            raise ProvisionError(f"stack {stack} is still in {status}")
        time.sleep(LOOK_SECONDS)
    return status


def _reasons(cloudformation: Any, stack: str) -> str:
    events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
    failed = [event for event in events if event["ResourceStatus"].endswith("FAILED")]
    return "\n".join(f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}" for event in failed)
