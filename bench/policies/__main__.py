"""All rules on all streams: `make bench-policies`; on a stream of one's own: `python -m bench.policies --csv ...`."""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import telling
from bench.policies import figures
from bench.policies.detectors import Evidently
from bench.policies.distance import Distances
from bench.policies.matrices import Played, played
from bench.policies.peers import PEERS, Contender, Setting
from bench.policies.streams import STREAMS, Stream, own

HERE = Path(__file__).resolve().parent
CHOICE = HERE / "CHOICE.md"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is played."""

    rules: Sequence[Contender]
    seeds: Sequence[int]
    multiples: Sequence[float]
    delays: Sequence[int]
    cache: Path


def main() -> None:
    """Play all, print the figures, and write them into the README when nothing was left out."""
    args = _arguments()
    rules = [*_default(args.csv is not None), *PEERS]
    plan = Plan(
        rules=[rule for rule in rules if rule.name in args.only] if args.only else rules,
        seeds=args.seed or range(5),
        multiples=args.price or figures.MULTIPLES,
        delays=args.delay or figures.DELAYS,
        cache=args.cache,
    )
    found: list[figures.Score] = []
    for stream in _streams(args):
        print(f"{stream.name}: {stream.about}; {len(stream.moment):,} rows", flush=True)
        found += _scores(stream, plan)
    text = "\n\n".join([_machine(plan), figures.tables(plan.rules, figures.in_hindsight(found))])
    print(f"\n{text}")
    if not (args.csv or args.seed or args.price or args.delay or args.only or args.keep):
        telling.write("figures", text, HERE / "README.md")


def _streams(args: argparse.Namespace) -> Iterator[Stream]:
    if args.csv:
        yield own(args.csv, args.target, args.timestamp, args.batches)
    else:
        yield from (load(args.wheels) for load in STREAMS.values())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.policies", description=__doc__)
    parser.add_argument("--csv", type=Path, help="a stream of your own, instead of the three")
    parser.add_argument("--target", help="its column to be guessed: classes, or a number (above its median or not)")
    parser.add_argument("--timestamp", help="its column of time: a date or a number")
    parser.add_argument("--batches", type=int, default=80, help="equal spans of time to cut it into (80)")
    parser.add_argument("--seed", type=int, action="append", help="may be given several times (0 to 4)")
    parser.add_argument("--price", type=float, action="append", help="in mean batches' errors; several times, too")
    parser.add_argument("--delay", type=int, action="append", help="of labels, in batches; several times, too")
    parser.add_argument("--only", action="append", help="one rule by its name; may be given several times")
    parser.add_argument("--wheels", type=Path, default=Path(".cache/wheels"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/policies"))
    parser.add_argument("--keep", action="store_true", help="do not write the README")
    args = parser.parse_args()
    if args.csv and not (args.target and args.timestamp):
        parser.error("--csv needs --target and --timestamp")
    return args


def _default(own_stream: bool) -> Sequence[Contender]:
    """The default rule, once its design is written down: the real streams must not be what it was designed on."""
    if not own_stream and not CHOICE.is_file():
        print(f"{CHOICE.name} does not exist yet: the default rule is left out.")
        return ()
    from bench.policies.default import DEFAULT

    return (DEFAULT,)


def _scores(stream: Stream, plan: Plan) -> list[figures.Score]:
    games = []
    for seed in plan.seeds:
        began = time.process_time()
        games.append(played(stream, seed, plan.cache))
        _say(f"seed {seed}: {games[-1].game.batches} batches", began)
    unit = figures.unit_price(games)
    found: list[figures.Score] = []
    for one in games:
        began = time.process_time()
        found += _played(one, plan, unit)
        _say(f"seed {one.seed}: played", began)
    return found


def _played(one: Played, plan: Plan, unit: float) -> list[figures.Score]:
    evidently = Evidently(one, plan.cache / f"{one.key}.evidently.json")
    distances = Distances(one)
    found: list[figures.Score] = []
    for delay in plan.delays:
        setting = {
            multiple: Setting(played=one, delay=delay, price=multiple * unit, evidently=evidently, distances=distances)
            for multiple in plan.multiples
        }
        found += figures.scores(plan.rules, setting)
        evidently.save()
    return found


def _say(what: str, began: float) -> None:
    print(f"  {what} ({time.process_time() - began:.0f} CPU s)", flush=True)


def _machine(plan: Plan) -> str:
    told = telling.machine(("lightgbm", "river", "evidently", "numpy"))
    spent = f"{time.process_time():.0f} CPU s, what was cached left out"
    return f"{told}; seeds {', '.join(map(str, plan.seeds))}; {spent}."


if __name__ == "__main__":
    main()
