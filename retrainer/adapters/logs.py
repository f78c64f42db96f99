"""The story in lines: one wide line per unit of work, JSON off a terminal, and never a secret in it."""

import logging
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from retrainer.core.events import Event, EvidenceMeasured
from retrainer.core.evidence import Evidence
from retrainer.core.reason import Reason
from retrainer.ports import Committed, ConfigError, Entry, Owed, PermanentError, TransientError, Verdict
from retrainer.telemetry import word_of

MASK = "***"
_SECRET_KEYS = re.compile(
    r"task_?token|^token$|http_?token|authorization|password|secret|security_?token|session_?token|signature|receipt",
    re.IGNORECASE,
)
_SECRET_TEXTS = (
    # task_token=..., "taskToken": "...", TaskToken='...', Invalid Token: '...', and the same of AWS's other secrets
    (
        ("token", "secret", "password", "x-amz-"),
        re.compile(
            r"(?P<keep>(?:task_?token|http_?token|aws_secret_access_key|aws_session_token|secret_?access_?key|"
            r"x-amz-security-token|x-amz-signature|x-amz-credential|invalid token|password)"
            r"\\?[\"']?\s*[:=]\s*\\?[\"']?)[^\s\"'\\,;&)}]+",
            re.IGNORECASE,
        ),
    ),
    (("bearer",), re.compile(r"(?P<keep>\bBearer\s+)[A-Za-z0-9._~+/=-]+", re.IGNORECASE)),
    # a database's password in its URL
    (("@",), re.compile(r"(?P<keep>://[^/\s:@]+:)[^/\s@]+(?=@)")),
    # an AWS access key id
    (("akia", "asia"), re.compile(r"(?P<keep>\b)(?:AKIA|ASIA)[A-Z0-9]{16}\b")),
    # a task token of Step Functions, wherever it stands
    (("aaaa",), re.compile(r"(?P<keep>\b)AAAA[A-Za-z0-9+/=]{100,}")),
)
"""Forms of secrets, each with what a text must hold, in small letters, to have one: to look for that is far cheaper."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""A name in an event may hold escape sequences; a terminal that shows the log must not obey them."""
_PLAIN = frozenset({Reason.MEASURING, Reason.NOTED, Reason.NOT_WATCHED})
_ROOT = logging.getLogger()
_QUIET = ("botocore", "aiobotocore", "urllib3", "apscheduler", "asyncio", "httpx", "httpcore", "uvicorn")


def configure(
    *, level: str = "info", style: str = "auto", stream: TextIO | None = None, secrets: Iterable[str] = ()
) -> None:
    """Send structlog's and the standard library's lines to `stream` (stderr) in one form.

    style: json, console, or auto (console on a terminal). `secrets` are values to be masked wherever they stand.
    """
    out = stream or sys.stderr
    is_console = style == "console" or (style == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    last: Processor = (
        structlog.dev.ConsoleRenderer(
            colors=out.isatty(), timestamp_key="at", exception_formatter=structlog.dev.plain_traceback
        )
        if is_console
        else structlog.processors.JSONRenderer(sort_keys=False, ensure_ascii=False, default=str)
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact(secrets),
                last,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def say(event: str, **keys: object) -> None:
    """One line on the process itself, such as its start."""
    structlog.stdlib.get_logger("retrainer").info(event, **keys)


def masked(value: object, key: str = "", *, secrets: Sequence[str] = ()) -> object:
    """The value with every secret in it masked, and control characters spelt out; `key` is the name it goes by."""
    if key and value is not None and _is_secret(key):
        return MASK
    if isinstance(value, Mapping):
        return {k: masked(v, str(k), secrets=secrets) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(v, secrets=secrets) for v in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    for secret in secrets:
        text = text.replace(secret, MASK)
    low = text.lower()
    for hints, form in _SECRET_TEXTS:
        for hint in hints:
            if hint in low:
                text = form.sub(rf"\g<keep>{MASK}", text)
                break
    return text if text.isprintable() else _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


@lru_cache(1024)
def _is_secret(key: str) -> bool:
    return _SECRET_KEYS.search(key) is not None


def redact(secrets: Iterable[str] = ()) -> Callable[[WrappedLogger, str, EventDict], EventDict]:
    """A processor that masks secrets by their key, by their form, and those of `secrets` by their value."""
    known = tuple(s for s in secrets if s)

    def process(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        first = {key: event[key] for key in ("at", "level", "event") if key in event}
        return {key: masked(value, key, secrets=known) for key, value in {**first, **event}.items()}

    return process


def _debugging() -> bool:
    """Asked before a line for debugging is put together, which costs ten times more than to ask."""
    return _ROOT.isEnabledFor(logging.DEBUG)


class LogTelemetry:
    """`ports.Telemetry` as log lines. The keys of a line are the same wherever they mean the same."""

    def __init__(self) -> None:
        self._log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("retrainer")

    def received(self, queue: str, kind: str, verdict: Verdict, why: str) -> None:
        is_bad = verdict in (Verdict.MALFORMED, Verdict.FOREIGN)
        if not is_bad and not _debugging():
            return
        keys: dict[str, Any] = {"queue": queue.rsplit("/", 1)[-1], "kind": kind, "verdict": verdict.value}
        if why:
            keys["why"] = why
        say = self._log.warning if is_bad else self._log.debug
        say("message_received", **keys)

    def decided(self, entry: Entry, committed: Committed, took_seconds: float) -> None:
        """A decision that changes nothing but a window is a line for debugging: a storm is made of them."""
        is_plain = entry.decision.reason in _PLAIN and not entry.decision.effects
        if (is_plain or committed is not Committed.NEW) and not _debugging():
            return
        if committed is not Committed.NEW:
            self._log.debug(
                "decision_not_new",
                model=entry.model,
                kind=word_of(entry.event),
                identity=entry.event.identity,
                committed=committed.value,
            )
            return
        decision = entry.decision
        state = decision.state
        keys: dict[str, Any] = {
            "model": entry.model,
            "decision": decision.id,
            "kind": word_of(entry.event),
            "identity": entry.event.identity,
            "reason": decision.reason.value,
            "detail": decision.detail,
            "effects": [word_of(e) for e in decision.effects],
            "execution": state.execution.name if state.execution else None,
            "generation": state.generation,
            "champion": state.champion.generation if state.champion else None,
            "kept": [f"{m.kind}:{m.name}" for m in state.kept],
            "policy": entry.policy_hash[:12],
            "took_seconds": round(took_seconds, 6),
        }
        if isinstance(entry.event, EvidenceMeasured):
            keys |= _measured(entry.event.evidence)
        say = self._log.debug if is_plain else self._log.info
        say("decision", **keys)

    def duplicate(self, model: str, event: Event) -> None:
        if _debugging():
            self._log.debug("event_known", model=model, kind=word_of(event), identity=event.identity)

    def carried_out(self, owed: Owed, error: str | None, took_seconds: float) -> None:
        keys: dict[str, Any] = {
            "model": owed.model,
            "effect": owed.effect.key,
            "kind": word_of(owed.effect),
            "decision": owed.decision,
            "tries": owed.tries,
            "took_seconds": round(took_seconds, 6),
        }
        if error is None:
            self._log.info("effect_carried_out", **keys)
        else:
            self._log.warning("effect_not_carried_out", error=error, **keys)

    def failed(self, what: str, error: BaseException) -> None:
        """An outage is one line, a defect comes with its traceback."""
        told = {"task": what, "error_kind": type(error).__name__, "error": str(error)}
        if isinstance(error, TransientError | PermanentError | ConfigError):
            self._log.warning("task_failed", **told)
        else:
            self._log.error("task_failed", **told, exc_info=error)


def _measured(evidence: Evidence) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "rows": evidence.rows,
        "drift_share": round(evidence.drift_share, 4),
        "measured_seconds": round(evidence.took_seconds, 3),
    }
    if seen := evidence.performance:
        keys |= {"metric": seen.metric, "performance": seen.value, "labels": seen.labels}
    return keys
