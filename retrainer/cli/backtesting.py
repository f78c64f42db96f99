"""The command that asks what policies would have done: `retrainer backtest`."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrainer.cli.arguments import Add, span
from retrainer.cli.terminal import say, table, working

if TYPE_CHECKING:
    from retrainer.backtest.cache import Cache
    from retrainer.backtest.history import History
    from retrainer.backtest.report import Sheet
    from retrainer.backtest.results import Result
    from retrainer.backtest.run import Settings
    from retrainer.core.policy import Policy


def add_to(add: Add) -> None:
    backtest = add(
        "backtest",
        _backtest,
        "tell what a policy would have done on a history, what that would have cost, and the best that was possible\n"
        "The decisions are the daemon's own; the model is one of the policy's backtest.family, trained here.",
        "retrainer backtest policies/recommender.yaml --history data/",
        "retrainer backtest policies/fraud.yaml --history s3://bucket/data/fraud/ --label-delay 3d --html fraud.html",
        "retrainer backtest policies/fraud.yaml --history fraud.csv --batch 1d --compare nightly.yaml,never.yaml",
        "retrainer backtest policies/fraud.yaml --history data/ --suggest",
    )
    backtest.add_argument("policy", type=Path, metavar="POLICY", help="a policy file")
    backtest.add_argument(
        "--history",
        required=True,
        metavar="PATH|S3",
        help="a folder of .parquet, .csv or .jsonl files, a batch each, in the order of their names; one file, "
        "which is cut by the policy's data.timestamp; or s3://bucket/prefix",
    )
    backtest.add_argument(
        "--compare", type=_files, default=(), metavar="FILE,FILE", help="other policies on the same history"
    )
    backtest.add_argument("--batch", type=span, help="cut the rows into batches of so much time (one file: 1d)")
    backtest.add_argument(
        "--label-delay", type=span, default=timedelta(0), metavar="SPAN", help="labels come so much later (default: 0s)"
    )
    backtest.add_argument(
        "--training-takes", type=span, default=timedelta(hours=1), metavar="SPAN", help="one execution (default: 1h)"
    )
    backtest.add_argument(
        "--warmup", type=int, metavar="N", help="batches before the first model (default: a tenth, at most 10)"
    )
    backtest.add_argument(
        "--price", type=float, metavar="N", help="of a retraining, in units of loss (default: by the policy's costs)"
    )
    backtest.add_argument("--seed", type=int, default=0, metavar="N", help="of the model family (default: 0)")
    backtest.add_argument("--no-optimum", action="store_true", help="leave the hindsight optimum out, the slowest part")
    backtest.add_argument("--suggest", action="store_true", help="search for a better policy on the older part")
    backtest.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="of what was trained and measured (default: ~/.cache/retrainer)"
    )
    backtest.add_argument("--json", type=Path, metavar="FILE", help="write everything for machines; - is the terminal")
    backtest.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots")


def _files(text: str) -> tuple[Path, ...]:
    return tuple(Path(part) for part in text.split(",") if part)


def _backtest(args: argparse.Namespace) -> int:
    from retrainer import wiring
    from retrainer.backtest.cache import Cache
    from retrainer.backtest.history import open_history
    from retrainer.backtest.run import Backtests, Settings, unjoined

    paths: list[Path] = [args.policy, *args.compare]
    bucket = args.history.removeprefix("s3://").partition("/")[0] if args.history.startswith("s3://") else None
    policies = [(name, wiring.load_policy(path, bucket)) for name, path in zip(_names(paths), paths, strict=True)]
    settings = Settings(
        label_delay=args.label_delay,
        training_takes=args.training_takes,
        warmup=args.warmup,
        price=args.price,
        seed=args.seed,
        with_optimum=not args.no_optimum,
    )
    cache = Cache(args.cache or Path.home() / ".cache" / "retrainer")
    with working("the history is read") as tell:
        history = open_history(args.history, policies[0][1].data, batch=args.batch)
        if args.suggest:
            return _suggest(args, policies[0][1], history, settings, cache, tell)
        backtests = Backtests(history, settings, cache)
        for name, policy in policies:
            if said := unjoined(policy, backtests.history):
                _warn(f"{name}: {said}")
        results = [backtests.run(policy, name, tell=tell) for name, policy in policies]
    return _tell(args, results)


def _names(paths: Sequence[Path]) -> list[str]:
    """A file's name without its ending, or its whole path where two have the same."""
    stems = [path.stem for path in paths]
    return [stem if stems.count(stem) == 1 else str(path) for stem, path in zip(stems, paths, strict=True)]


def _tell(args: argparse.Namespace, results: "Sequence[Result]") -> int:
    from retrainer.backtest import report

    if args.html:
        from retrainer.backtest.page import page

        _write(args.html, page(results))
    if args.json:
        first = results[0]
        told = [report.as_json(first), *(report.as_json(other, first) for other in results[1:])]
        _write(args.json, json.dumps({"results": told}))
    if args.json != Path("-"):
        say(report.headline(results[0]))
        _show(report.sheets(results))
    return 0


def _suggest(
    args: argparse.Namespace,
    policy: "Policy",
    history: "History",
    settings: "Settings",
    cache: "Cache",
    tell: Callable[[str], Any],
) -> int:
    from dataclasses import replace

    from retrainer.backtest import suggest
    from retrainer.backtest.run import Backtests
    from retrainer.ports import ConfigError

    if args.compare or args.html:
        raise ConfigError("--suggest is for one policy and has no page; leave --compare and --html out")
    # The first part has the warm-up of the whole, and nothing is compared with the optimum.
    warmup = Backtests(history, settings, cache).warmup
    settings = replace(settings, warmup=warmup, with_optimum=False)
    known: dict[int, Backtests] = {}

    def runner(candidate: "Policy", part: "History") -> "Result":
        backtests = known.setdefault(len(part), Backtests(part, settings, cache))
        return backtests.run(candidate, candidate.model)

    found = suggest.suggest(policy, history, runner, tell=tell)
    if args.json:
        _write(args.json, json.dumps(suggest.as_json(found)))
    if args.json != Path("-"):
        _show(suggest.sheets(found))
        say(found.fragment)
    return 0


def _warn(text: str) -> None:
    print(f"retrainer: {text}", file=sys.stderr)  # noqa: T201


def _show(sheets: "Sequence[Sheet]") -> None:
    for sheet in sheets:
        say(f"\n{sheet.title}")
        table(sheet.columns, sheet.rows, right=sheet.right)
        for note in sheet.notes:
            say(note)


def _write(path: Path, text: str) -> None:
    from retrainer.ports import ConfigError

    if path == Path("-"):
        say(text)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}; name a file in a folder that exists") from error
