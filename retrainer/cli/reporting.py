"""`retrainer report`: what was last measured of a model: which columns drifted, how far and since when."""

import argparse
import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from retrainer.cli.arguments import Add, for_machines
from retrainer.cli.terminal import say, table, working
from retrainer.client import FailedError

if TYPE_CHECKING:
    from retrainer.core.effects import PublishReport
    from retrainer.core.events import EvidenceMeasured
    from retrainer.core.policy import Policy
    from retrainer.ports import Ledger, Recorded
    from retrainer.publishing import Reported
    from retrainer.report.document import Document, Unused

SHOWN_MAX = 20
"""Columns without drift, and things that could not be used, that a terminal is shown."""

NAME_MAX = 40
"""Characters of a column's name in the table."""

_LOOKED_AT = (64, 4_096, 10_000_000)
"""Newest decisions among which the measurement is looked for: it is nearly always among the first."""


def add_to(add: Add) -> None:
    report = add(
        "report",
        _report,
        "tell what was last measured of a model: which columns drifted, how far and since when\n"
        "The table is told from the ledger (RETRAINER_LEDGER), which is only read. The other forms need the profiles\n"
        "too that the daemon stored in S3; batches are read again only where there are none.",
        "retrainer report recommender",
        "retrainer report recommender --html recommender.html",
        "retrainer report recommender --json | jq '.columns[] | select(.drifted)'",
    )
    report.add_argument("model", help="the model, as its policy names it")
    report.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots, for a phone or a desk")
    report.add_argument("--evidently", type=Path, metavar="FILE", help="write Evidently's page, which takes seconds")
    for_machines(report)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """A measurement with the decision on it. `asked` and `policy` are None where the ledger was compacted since."""

    recorded: "Recorded"
    event: "EvidenceMeasured"
    asked: "PublishReport | None"
    policy: "Policy | None"


def _report(args: argparse.Namespace) -> int:
    from retrainer.report.document import document
    from retrainer.report.page import page

    found = asyncio.run(_newest(args.model))
    if args.json or args.html or args.evidently:
        with working("reading the profiles"):
            report = _read(found)
            told = report.document()
            if args.html:
                _write(args.html, page(told))
            if args.evidently:
                _write(args.evidently, report.evidently(told))
    else:
        told = document(
            model=args.model,
            decision=found.recorded.id,
            evidence=found.event.evidence,
            reference=found.asked.reference if found.asked else (),
            since=found.asked.since if found.asked else (),
            measured_at=found.recorded.at,
        )
    if args.json:
        say(json.dumps(told))
    else:
        _show(told)
    return 0


def _read(found: _Measured) -> "Reported":
    """The whole report. Raises FailedError where it cannot be had."""
    from retrainer.adapters.datasets import Datasets
    from retrainer.ports import PermanentError, TransientError
    from retrainer.worker import Worker

    if found.asked is None or found.policy is None:
        raise FailedError(
            f"the windows of {found.recorded.id} were dropped when the ledger was compacted; "
            f"`retrainer report {found.recorded.model}` alone tells what was measured"
        )
    try:
        report = Worker(Datasets()).report(found.asked, found.policy.data, found.event.evidence)
    except (PermanentError, TransientError) as error:
        raise FailedError(
            f"{error}\nwithout --json, --html and --evidently the report needs the ledger only"
        ) from error
    return replace(report, measured_at=found.recorded.at)


async def _newest(model: str) -> _Measured:
    """The newest measurement of the model. Raises FailedError where there is none."""
    from retrainer.cli.replaying import known_models, opened

    async with opened() as ledger:
        await known_models(ledger, model)
        recorded = await _recorded(ledger, model)
        return await _followed(ledger, recorded)


async def _recorded(ledger: "Ledger", model: str) -> "Recorded":
    from retrainer.core.events import EvidenceMeasured
    from retrainer.core.reason import Reason

    for limit in _LOOKED_AT:
        decisions = await ledger.decisions(model, limit=limit)
        for recorded in decisions:
            if recorded.event_kind == EvidenceMeasured.__name__ and recorded.reason != Reason.STALE:
                return recorded
        if len(decisions) < limit:
            break
    raise FailedError(f"nothing was measured of {model} yet: that is done when data arrives under its policy's prefix")


async def _followed(ledger: "Ledger", recorded: "Recorded") -> _Measured:
    """The measurement of the decision, with the windows that were asked for and the policy then."""
    from retrainer.core import record
    from retrainer.core.effects import MeasureEvidence, PublishReport
    from retrainer.replay import version_of

    if not recorded.event:
        raise FailedError(f"what {recorded.id} measured was dropped when the ledger was compacted")
    event: EvidenceMeasured = record.load_event(recorded.event_kind, recorded.event)  # type: ignore[assignment]
    asking = await ledger.decision(event.effect)
    if asking is None:
        return _Measured(recorded=recorded, event=event, asked=None, policy=None)
    state = await ledger.state(recorded.model)
    async for original in ledger.history(recorded.model, version_of(asking)):
        body = next((body for key, _, body in original.effects if key == event.effect), "")
        if not body or original.policy is None:
            break
        asked: MeasureEvidence = record.load_effect(MeasureEvidence.__name__, body)  # type: ignore[assignment]
        policy = record.load_policy(original.policy)
        windows = PublishReport(
            key=f"{recorded.id}.report",
            bucket=policy.data.bucket,
            report_key=f"reports/{recorded.model}/{recorded.id}.html",
            reference=asked.reference,
            current=asked.current,
            grid=asked.grid,
            profiles=asked.profiles,
            first_predictions=asked.first_predictions,
            since=state.drifting,
        )
        return _Measured(recorded=recorded, event=event, asked=windows, policy=policy)
    return _Measured(recorded=recorded, event=event, asked=None, policy=None)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FailedError(f"{file} cannot be written: {error.strerror}") from error


# --- the table ---


def _show(told: "Document") -> None:
    from retrainer.explain import printable
    from retrainer.report import words

    say(printable(f"{told['model']}: {words.headline(told)}"))
    say(f"  measured   {words.moment(told['measured_at'])} UTC, {told['decision']}")
    for name, window in (("current", told["current"]), ("reference", told["reference"])):
        say(f"  {name:<11}{words.rows(window)} in {words.batches(window)}")
    for name, found in (("performed", told["performance"]), ("estimated", told["estimated"])):
        if found:
            say(f"  {name:<11}{found['metric']} {words.figure(found['value'])} on {found['labels']:,} labels")
    _show_unused("unusable", told["unusable"], len(told["unusable"]))
    _show_unused("refused", told["refused"], told["refused_batches"])
    if told["columns"]:
        _show_columns(told)


def _show_unused(label: str, found: "Sequence[Unused]", total: int) -> None:
    from retrainer.explain import printable
    from retrainer.report import words

    for n, unused in enumerate(found[:SHOWN_MAX]):
        said = f"{words.short(unused['what'])}: {words.short(unused['why'])}"
        say(f"  {'' if n else label:<11}{printable(said)}")
    if total > SHOWN_MAX:
        say(f"  {'':<11}and {total - SHOWN_MAX:,} more")


def _show_columns(told: "Document") -> None:
    from retrainer.report import words

    drifted = [column for column in told["columns"] if column["drifted"]]
    calm = [column for column in told["columns"] if not column["drifted"]]
    rows = [
        (
            words.short(column["column"], NAME_MAX),
            words.times(column["times_threshold"]) if column["drifted"] else "-",
            column["test"],
            words.figure(column["score"]),
            f"{column['threshold']:g}",
            words.chance(column["p_value"]),
            words.nulls(column),
            f"{column['unseen']:.1%}" if column["unseen"] else "",
            words.moment(column["since"]),
        )
        for column in (*drifted, *calm[:SHOWN_MAX])
    ]
    names = ("column", "drifted", "test", "score", "threshold", "p-value", "nulls", "unseen", "since")
    # A column in which nothing is said takes room from those that say something.
    kept = [n for n in range(len(names)) if any(row[n] for row in rows)]
    shown = [[row[n] for n in kept] for row in rows]
    table([names[n] for n in kept], shown, right=range(1, len(kept)))
    if len(calm) > SHOWN_MAX:
        say(f"and {len(calm) - SHOWN_MAX:,} more that have not drifted: --json has all")
