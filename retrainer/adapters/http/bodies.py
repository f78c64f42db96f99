"""What a request may carry, and how it is read: small, soon, and of one meaning."""

import asyncio
import json
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

BODY_BYTES_MAX: Final = 64 * 1024
BODY_SECONDS_MAX: Final = 10.0
ERRORS_TOLD: Final = 5


def _line(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise ValueError("must be one line of printable text")
    return value.strip()


Line = Annotated[str, Field(max_length=500), AfterValidator(_line)]
B = TypeVar("B", bound=BaseModel)
RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Line
    request: RequestId | None = None


class BodyWithWhy(Body):
    why: Line


class Compaction(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    before: AwareDatetime


async def read(request: Request, cls: type[B]) -> B:
    """The body, parsed. Refuses what is too large, too slow or not as it should be."""
    raw = await _bytes(request)
    try:
        body = cls.model_validate_json(raw)
    except ValidationError as error:
        raise HTTPException(422, _told(error)) from None
    json.loads(raw, object_pairs_hook=_once)
    return body


def _told(error: ValidationError) -> str:
    errors = error.errors(include_url=False, include_input=False)
    lines = [f"{'.'.join(map(str, e['loc']))[:80] or 'the body'}: {e['msg']}" for e in errors[:ERRORS_TOLD]]
    more = [f"and {len(errors) - ERRORS_TOLD} more"] if len(errors) > ERRORS_TOLD else []
    return "; ".join([*lines, *more])


def _once(pairs: list[tuple[str, object]]) -> None:
    """Of two equal keys pydantic takes the last, and whoever looked before may have seen the first."""
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise HTTPException(422, f"{twice}: stands there twice")


async def _bytes(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise HTTPException(413, f"the body is larger than {BODY_BYTES_MAX} bytes")
    except TimeoutError:
        raise HTTPException(408, f"the body did not come within {BODY_SECONDS_MAX:.0f} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "the client went away") from None
    return bytes(body)
