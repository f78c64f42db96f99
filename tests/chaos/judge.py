"""What became of everything that was sent, told from the outside: the ledger's rows, and AWS's own lists."""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from retrainer.ports import Recorded
from tests.chaos.world import BUCKET, Identity

ALL = 1_000_000
_START = "StartExecution"


@dataclass(slots=True, kw_only=True)
class Findings:
    """A line for each thing that is not as promised.

    doubled: decided, started or numbered twice, or two executions of a model at a time. lost: sent and not decided,
    decided and not started, or left somewhere. wrong: anything else.
    """

    doubled: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slowest: timedelta = timedelta(0)
    """The longest time from a fact's being sent to its decision."""

    def __str__(self) -> str:
        lines = [(name, line) for name in ("doubled", "lost", "wrong") for line in getattr(self, name)]
        return "\n".join(f"{name}: {line}" for name, line in lines) or "nothing is doubled, lost or wrong"


def decided(findings: Findings, sent: Mapping[Identity, datetime], decisions: Iterable[Recorded]) -> None:
    """Exactly one decision for every fact that was sent."""
    rows: Counter[Identity] = Counter()
    at: dict[Identity, datetime] = {}
    for decision in decisions:
        name = (decision.model, _fact(decision))
        rows[name] += 1
        at[name] = decision.at
    findings.doubled += [f"{name} has {count} decisions" for name, count in rows.items() if count > 1]
    findings.lost += [
        f"{name}, sent {when:%H:%M:%S}, was never decided" for name, when in sent.items() if not rows[name]
    ]
    findings.slowest = max((at[name] - when for name, when in sent.items() if name in at), default=timedelta(0))


def missing(sent: Iterable[Identity], decisions: Iterable[Recorded]) -> int:
    """How many of the facts have no decision yet."""
    return len(set(sent) - {(d.model, _fact(d)) for d in decisions})


def _fact(decision: Recorded) -> str:
    """The identity as the sender knows it: S3, not the sender, says which version an object has."""
    identity = decision.event_identity
    return identity.rpartition("@")[0] if identity.startswith(f"object:{BUCKET}/") else identity


def started(findings: Findings, decisions: Iterable[Recorded], executions: Sequence[Mapping[str, Any]]) -> None:
    """The ledger's retrainings and the executions of Step Functions are the same, one to one, each generation once."""
    planned = Counter(
        key for d in decisions if d.reason == "retraining" for key, kind, _ in d.effects if kind == _START
    )
    seen = Counter(str(e["name"]) for e in executions)
    findings.doubled += [f"{name} was decided {count} times" for name, count in planned.items() if count > 1]
    findings.doubled += [f"{name} was started {count} times" for name, count in seen.items() if count > 1]
    findings.doubled += [f"{name} was started, and no decision says so" for name in seen.keys() - planned.keys()]
    findings.lost += [f"{name} was decided and never started" for name in planned.keys() - seen.keys()]
    generations = Counter(name.rpartition("-")[0] for name in seen)
    findings.doubled += [f"{g} exists {count} times" for g, count in generations.items() if count > 1]


def one_at_a_time(findings: Findings, executions: Sequence[Mapping[str, Any]]) -> None:
    """No execution of a model begins before the one before it has ended."""
    by_model = defaultdict(list)
    for execution in executions:
        by_model[str(execution["name"]).rsplit("-", 2)[0]].append(execution)
    for own in by_model.values():
        for before, after in pairwise(own):
            if before.get("stopDate") is None or after["startDate"] < before["stopDate"]:
                findings.doubled.append(f"{after['name']} began while {before['name']} ran")


def chained(findings: Findings, decisions: Iterable[Recorded]) -> None:
    """Each model's decisions are numbered without a gap, and each begins with the state that the last one left."""
    by_model: dict[str, list[Recorded]] = defaultdict(list)
    for decision in decisions:
        by_model[decision.model].append(decision)
    for model, own in by_model.items():
        own.sort(key=lambda d: int(d.id.rpartition("-")[2]))
        if [d.id for d in own] != [f"{model}-{n + 1}" for n in range(len(own))]:
            findings.wrong.append(f"{model}'s decisions are not numbered 1 to {len(own)}")
        for before, after in pairwise(own):
            if before.state_hash_after != after.state_hash_before:
                findings.wrong.append(f"{after.id} does not begin where {before.id} ended")


def refused(findings: Findings, malformed: Iterable[str], messages: Iterable[Mapping[str, Any]]) -> None:
    """The dead-letter queue holds what was malformed by intent, at least once, and nothing else."""
    wanted, held = set(malformed), {str(m["Body"]) for m in messages}
    findings.lost += [f"never refused: {body}" for body in wanted - held]
    findings.wrong += [f"refused, though it is well formed: {body}" for body in held - wanted]


def fired(findings: Findings, decisions: Iterable[Recorded], model: str, since: datetime, until: datetime) -> None:
    """The minutely schedule fired at each minute in (since, until]."""
    minute = since.replace(second=0, microsecond=0) + timedelta(minutes=1)
    fires = {json.loads(d.event)["fire_at"] for d in decisions if d.model == model and d.event_kind == "ScheduleFired"}
    seen = {datetime.fromisoformat(at) for at in fires}
    while minute <= until:
        if minute not in seen:
            findings.lost.append(f"the schedule of {model} did not fire at {minute:%H:%M}")
        minute += timedelta(minutes=1)


def intact(findings: Findings, path: Path) -> None:
    """SQLite finds nothing wrong with its file."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        said = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
    findings.wrong += [f"{path.name}: {words}" for words in said if words != "ok"]
