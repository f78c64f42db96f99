"""What came of the cases: told to the person who wrote them, or written into their file in place of expectations."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from retrainer.cases import moments
from retrainer.cases.language import Case, Kind, MistakeError, Step
from retrainer.cases.virtual import Decided
from retrainer.cases.words import without_comment
from retrainer.core.policy import Policy
from retrainer.core.rules import Node, Tree, tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """What a step brought, and the last decision made at it (or before it, where none was)."""

    kind: Kind
    words: tuple[str, ...] = ()
    until: datetime | None = None
    reasons: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    last: Decided | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """An expectation that was not met; `step` is None where a retraining came before the step of that line."""

    line: int
    step: Step | None
    at: datetime
    until: datetime
    expected: str
    got: Got


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """A case and what in it did not come as expected; `mistake` is where it could not go on."""

    case: Case
    unmet: tuple[Unmet, ...] = ()
    mistake: MistakeError | None = None

    @property
    def is_met(self) -> bool:
        """Whether all came as expected."""
        return not self.unmet and self.mistake is None


def written(got: Got, at: datetime, zone: ZoneInfo) -> str:
    """What a step brought, as one writes it after the arrow."""
    words = f": {', '.join(got.words)}" if got.words else ""
    until = f" until {moments.shown(got.until, at, zone)}" if got.until else ""
    return f"{got.kind.value}{words}{until}"


def told(path: object, result: CaseResult, zone: ZoneInfo, policy: Policy) -> str:
    """What did not come as expected in a case, with the place, the reason and the rules' values; empty if all did."""
    lines: list[str] = []
    for unmet in result.unmet:
        lines.append(f"{path}:{unmet.line}: {result.case.title}")
        lines.append(f"  at        {unmet.at.astimezone(zone):%Y-%m-%d %H:%M:%S} {zone.key}")
        lines.append(f"  expected  -> {unmet.expected}")
        lines.append(f"  got       -> {written(unmet.got, unmet.at, zone)}")
        if unmet.got.last:
            last = unmet.got.last
            since = "" if unmet.got.reasons else f"nothing happened; at {last.at.astimezone(zone):%Y-%m-%d %H:%M} "
            lines.append(f"  because   {since}{last.decision.reason}: {last.decision.detail}")
            holds = unmet.got.kind is Kind.HOLD or unmet.expected.startswith(Kind.HOLD)
            lines += [f"            {line}" for line in _branches(_tree(policy, last), all_guards=holds)]
    if mistake := result.mistake:
        lines.append(f"{path}:{mistake.line}:{mistake.column}: {mistake.said}")
    return "\n".join(lines)


def facts(path: object, result: CaseResult, zone: ZoneInfo, policy: Policy) -> dict[str, Any]:
    """The same for machines."""
    mistake = result.mistake
    return {
        "file": str(path),
        "line": result.case.line,
        "title": result.case.title,
        "met": result.is_met,
        "unmet": [
            {
                "line": unmet.line,
                "at": unmet.at.astimezone(UTC).isoformat(),
                "expected": unmet.expected,
                "got": written(unmet.got, unmet.at, zone),
                "reasons": list(unmet.got.reasons),
                "details": list(unmet.got.details),
                "tree": asdict(_tree(policy, unmet.got.last)) if unmet.got.last else None,
            }
            for unmet in result.unmet
        ],
        "mistake": mistake and {"line": mistake.line, "column": mistake.column, "said": mistake.said},
    }


# --- the rules ---


def _tree(policy: Policy, of: Decided) -> Tree:
    return tree(policy, of.before, of.event, of.at, of.fleet)


def _branches(seen: Tree, *, all_guards: bool) -> Sequence[str]:
    """The tree as it is shown: + for what is met or lets go, - for what is not, and a guard that holds as !."""
    if not all_guards:
        return _lines(seen.triggers, {True: "+", False: "-", None: " "}, 0)
    return [
        *_lines(seen.triggers, {True: "+", False: "-", None: " "}, 0),
        "guards",
        *(line for guard in seen.guards for line in _lines(guard, {True: "+", False: "!", None: " "}, 1)),
    ]


def _lines(node: Node, signs: Mapping[bool | None, str], depth: int) -> Sequence[str]:
    against = f" (threshold {node.threshold})" if node.threshold else ""
    said = f"{'  ' * depth}{signs[node.met]} {node.name}{': ' if node.value else ''}{node.value}{against}"
    return [said, *(line for child in node.children for line in _lines(child, signs, depth + 1))]


# --- rewriting ---


def updated(text: str, results: Sequence[CaseResult], zone: ZoneInfo) -> str:
    """The file with what was decided in place of what was expected; comments and all else stay."""
    lines = text.splitlines()
    before: dict[int, list[str]] = {}
    for unmet in (u for r in results for u in r.unmet):
        new = f"-> {written(unmet.got, unmet.at, zone)}"
        step = unmet.step
        if step is None:
            at = f"{unmet.at.astimezone(zone):%Y-%m-%d %H:%M:%S}".removesuffix(":00")
            before.setdefault(unmet.line, []).append(f"  {at}  (time passes)  {new}")
            lines[unmet.line - 1] = _dated(lines[unmet.line - 1], unmet.until, zone)
        elif step.expected:
            line = lines[step.expected.line - 1]
            bare = without_comment(line)
            lines[step.expected.line - 1] = line[: step.expected.column - 1] + new + line[len(bare) :]
        else:
            bare = without_comment(lines[step.line - 1])
            lines[step.line - 1] = f"{bare}  {new}{lines[step.line - 1][len(bare) :]}"
    made = [line for n, kept in enumerate(lines, 1) for line in (*before.get(n, ()), kept)]
    return "\n".join(made) + "\n"


def _dated(line: str, at: datetime, zone: ZoneInfo) -> str:
    """A line that says `+30m` with its time instead: the line before it is another now."""
    bare = line.lstrip()
    if not bare.startswith("+"):
        return line
    moment = moments.find(bare, 1, 1).text
    local = at.astimezone(zone)
    return line.replace(moment, f"{local:%Y-%m-%d %H:%M:%S}".removesuffix(":00"), 1)
