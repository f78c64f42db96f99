"""Names and places of one execution: what may be called what, and where its objects lie in the bucket."""

import re

from steps.errors import InputError
from steps.objects import Uri

MODEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,22}[a-z0-9])?")
CANDIDATE = re.compile(r"[a-z0-9-]{1,12}")
EXECUTION = re.compile(r"(?P<model>.+)-g(?P<generation>[1-9][0-9]{0,8})-[0-9a-f]{8}")
"""<model>-g<generation>-<hash8>: at most 44 characters, so that `<execution>-<candidate>-od-<retry>` keeps to the
63 characters of a SageMaker job name."""


def check_names(execution: str, model: str, generation: int, candidates: list[str]) -> None:
    """Raises InputError; every later name is built from these, so nothing later has to be checked."""
    if not MODEL.fullmatch(model):
        raise InputError(f"The model name {model!r} is not 1 to 24 characters of a-z, 0-9 and inner hyphens.")
    parts = EXECUTION.fullmatch(execution)
    if parts is None or parts["model"] != model or int(parts["generation"]) != generation:
        raise InputError(f"The execution name {execution!r} is not {model}-g{generation}-<8 hex digits>.")
    if not candidates:
        raise InputError(f"The execution {execution} names no candidate to train.")
    for name in candidates:
        if not CANDIDATE.fullmatch(name):
            raise InputError(f"The candidate name {name!r} is not 1 to 12 characters of a-z, 0-9 and hyphens.")
    if len(set(candidates)) != len(candidates):
        raise InputError(f"The execution {execution} names a candidate twice: {', '.join(candidates)}.")


def champion(bucket: str, model: str) -> Uri:
    return Uri(bucket, f"champions/{model}.json")


def fence(bucket: str, model: str) -> Uri:
    """A model name has no dot, so this never is another model's pointer."""
    return Uri(bucket, f"champions/{model}.fence.json")


def within(bucket: str, execution: str, path: str) -> Uri:
    return Uri(bucket, f"executions/{execution}/{path}")
