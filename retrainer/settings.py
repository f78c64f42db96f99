"""What the process needs to know of its surroundings: environment variables RETRAINER_*, read once, frozen."""

import ipaddress
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from retrainer.ports import ConfigError

PREFIX = "RETRAINER_"
_ARN = r"^arn:aws[a-z-]*:states:[a-z0-9-]+:(\d{12}):stateMachine:[A-Za-z0-9_-]+$"
_AWS_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SECRET_CHARACTERS_MIN = 12
"""A shorter value is a placeholder of a local AWS ("test"); masking it would mask ordinary words."""

S = TypeVar("S", bound=BaseSettings)


class Reach(BaseSettings):
    """Where the daemon listens and keeps its files: all that a command beside it needs. Nothing in it is required."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, env_ignore_empty=True, extra="ignore")

    ledger: str = Field(
        default="sqlite:///retrainer.db",
        description="SQLAlchemy URL of the ledger: an SQLite file for one daemon, PostgreSQL for several replicas",
        examples=["sqlite:///retrainer.db", "postgresql://retrainer@db.example.com/retrainer"],
    )
    policies: Path = Field(default=Path("policies"), description="Folder of policy files", examples=["policies"])
    http_host: str = Field(default="127.0.0.1", description="Address to listen on", examples=["127.0.0.1"])
    http_port: int = Field(default=8321, ge=0, le=65535, description="Port to listen on", examples=["8321"])
    http_token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Bearer token of the HTTP interface; required when it listens beyond loopback",
        examples=["<32 random characters>"],
    )

    @property
    def http_url(self) -> str:
        """Where a client on the same machine finds the daemon."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.http_host, self.http_host)  # noqa: S104 - looked for
        return f"http://[{host}]:{self.http_port}" if ":" in host else f"http://{host}:{self.http_port}"


class Queues(Reach):
    """The queues: all that a command on the dead-letter queue needs, which works without a daemon."""

    queue_url: str = Field(
        pattern=r"^https?://",
        description="SQS queue that EventBridge fills",
        examples=["https://sqs.eu-central-1.amazonaws.com/123456789012/retrainer-events"],
    )
    dlq_url: str = Field(
        pattern=r"^https?://",
        description="SQS queue for messages that are refused",
        examples=["https://sqs.eu-central-1.amazonaws.com/123456789012/retrainer-refused"],
    )


class Settings(Queues):
    """What the daemon needs. AWS itself is found as every SDK finds it (AWS_DEFAULT_REGION, AWS_ENDPOINT_URL, ...)."""

    bucket: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        description="S3 bucket of data, artifacts and reports",
        examples=["my-retrainer-data"],
    )
    state_machine_arn: str = Field(
        pattern=_ARN,
        description="The Step Functions state machine that retrains",
        examples=["arn:aws:states:eu-central-1:123456789012:stateMachine:retraining"],
    )
    profile_state_machine_arn: str | None = Field(
        default=None,
        pattern=_ARN,
        description="The Step Functions state machine that counts large windows, for policies with windows.scale_out",
        examples=["arn:aws:states:eu-central-1:123456789012:stateMachine:profile"],
    )
    accounts: Annotated[frozenset[str], NoDecode] = Field(
        default_factory=lambda given: frozenset(str(given.get("state_machine_arn", "")).split(":")[4:5]),
        description="AWS accounts whose events are believed, with commas; default: the state machine's",
        examples=["123456789012,210987654321"],
    )
    pollers: int = Field(
        default=32, ge=1, le=64, description="Long polls of the queue at a time, when much comes", examples=["32"]
    )
    poll_wait_seconds: int = Field(default=20, ge=0, le=20, description="Length of a long poll", examples=["20"])
    sqs_client: Literal["fast", "aiobotocore"] = Field(
        default="fast",
        description="Who carries receives and deletes: fast (our own HTTP) or aiobotocore (the SDK)",
        examples=["aiobotocore"],
    )
    observe_seconds: float = Field(
        default=15.0, gt=0, description="How often executions are compared with what AWS says", examples=["15"]
    )
    evidence_deadline_seconds: float = Field(
        default=300.0, gt=0, description="A measurement that takes longer is given up", examples=["300"]
    )
    evidence_memory_mib: int = Field(
        default=4096, ge=256, description="Memory limit of the evidence worker", examples=["4096"]
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error", examples=["info"]
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto is console on a terminal, json elsewhere", examples=["json"]
    )

    @field_validator("accounts", mode="before")
    @classmethod
    def _accounts(cls, value: object) -> object:
        found = [v.strip() for v in value.split(",") if v.strip()] if isinstance(value, str) else value
        if isinstance(found, list):
            for account in found:
                if not (account.isascii() and account.isdigit() and len(account) == 12):
                    raise ValueError(f"{account!r} is not an AWS account, which has 12 digits")
        return found

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _guarded(self) -> "Settings":
        if self.http_token is None and not is_loopback(self.http_host):
            raise ValueError(
                f"{PREFIX}HTTP_HOST={self.http_host} can be reached from other machines, so {PREFIX}HTTP_TOKEN "
                f"must be set (at least 16 characters), or {PREFIX}HTTP_HOST=127.0.0.1"
            )
        return self

    def secrets(self) -> tuple[str, ...]:
        """Values that no log may show."""
        token = self.http_token.get_secret_value() if self.http_token else ""
        password = unquote(urlsplit(self.ledger).password or "")
        known = [token, password, *map(os.environ.get, _AWS_SECRETS)]
        return tuple(s for s in known if s and len(s) >= _SECRET_CHARACTERS_MIN)


def read(cls: type[S]) -> S:
    """The settings from the environment. Raises ConfigError, one line for each variable to mend."""
    try:
        return cls()
    except ValidationError as error:
        lines = [_told(cls, dict(e)) for e in error.errors(include_url=False, include_context=False)]
        raise ConfigError("\n".join(lines)) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def table(cls: type[BaseSettings] = Settings) -> str:
    """All settings as a Markdown table, for the documentation."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {_default(field)} | {field.description} |"
        for name, field in cls.model_fields.items()
    ]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return "" if field.default is None or field.default_factory else f"`{field.default}`"


def _told(cls: type[BaseSettings], error: dict[str, Any]) -> str:
    said = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return said
    field = str(error["loc"][0])
    variable = f"{PREFIX}{field.upper()}"
    example = (cls.model_fields[field].examples or [""])[0]
    if error["type"] == "missing":
        return f"{variable} is not set; set it as in {variable}={example}{_near(cls, variable, os.environ)}"
    given = "" if field == "http_token" else f"={error['input']!s:.100}"
    return f"{variable}{given}: {said}; set it as in {variable}={example}"


def _near(cls: type[BaseSettings], variable: str, environ: Mapping[str, str]) -> str:
    """A misspelt variable is the likeliest reason for a missing one."""
    known = {f"{PREFIX}{name.upper()}" for name in cls.model_fields}
    strange = [name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in known]
    close = get_close_matches(variable, strange, n=1, cutoff=0.9)
    return f" ({close[0]} is set, but there is no such setting)" if close else ""
