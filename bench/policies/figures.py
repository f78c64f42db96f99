"""What the rules cost, as ratios to the hindsight optimum, and what of it is chance."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.policies.game import play, solve
from bench.policies.matrices import Played
from bench.policies.peers import Contender, Setting
from bench.telling import table

DELAYS = (0, 1, 5)
MULTIPLES = (0.03, 0.1, 0.3, 1.0, 3.0)
REPLICATES = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One game played by one variant of one rule; `excess` is its cost over the optimum, in mean batches' errors."""

    rule: str
    variant: str
    stream: str
    seed: int
    delay: int
    multiple: float
    ratio: float
    excess: float
    retrainings: int
    needed: int


def unit_price(games: Sequence[Played]) -> float:
    """The errors of a fresh model in a mean batch of the stream: the unit of its prices."""
    fresh = [p.game.losses[np.arange(p.game.batches - 1), np.arange(1, p.game.batches)].mean() for p in games]
    return float(np.mean(fresh))


def scores(rules: Iterable[Contender], setting: Mapping[float, Setting]) -> Iterable[Score]:
    """Every variant of every rule on one stream, seed and delay; `setting` has one entry for each multiple."""
    first = next(iter(setting.values()))
    game, delay = first.played.game, first.delay
    best = {multiple: solve(game, s.price, delay) for multiple, s in setting.items()}
    for rule in rules:
        for name, variant in rule.variants.items():
            once = None if rule.priced else play(game, variant(first), 0.0, delay)
            for multiple, s in setting.items():
                if once is None:
                    cost, times = play(game, variant(s), s.price, delay)
                else:
                    cost, times = once[0] + s.price * len(once[1]), once[1]
                yield Score(
                    rule=rule.name,
                    variant=name,
                    stream=first.played.name,
                    seed=first.played.seed,
                    delay=delay,
                    multiple=multiple,
                    ratio=cost / best[multiple][0],
                    excess=(cost - best[multiple][0]) / s.price * multiple,
                    retrainings=len(times),
                    needed=len(best[multiple][1]),
                )


def in_hindsight(found: Iterable[Score]) -> list[Score]:
    """Of each rule the variant that costs least, chosen for each stream and price."""
    groups: dict[tuple[str, str, float], dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
    for score in found:
        groups[score.rule, score.stream, score.multiple][score.variant].append(score)
    return [score for variants in groups.values() for score in min(variants.values(), key=geometric)]


def geometric(found: Sequence[Score]) -> float:
    """The geometric mean of the ratios."""
    return float(np.exp(np.mean([np.log(s.ratio) for s in found])))


def interval(found: Sequence[Score], seed: int = 0) -> tuple[float, float]:
    """95 % of the geometric mean, by drawing whole pairs of stream and seed."""
    blocks: dict[tuple[str, int], list[float]] = defaultdict(list)
    for score in found:
        blocks[score.stream, score.seed].append(float(np.log(score.ratio)))
    sums = np.array([[sum(logs), len(logs)] for logs in blocks.values()])
    drawn = sums[np.random.default_rng(seed).integers(0, len(sums), (REPLICATES, len(sums)))].sum(axis=1)
    low, high = np.exp(np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975)))
    return float(low), float(high)


def tables(rules: Sequence[Contender], found: Sequence[Score]) -> str:
    """The figures in Markdown: all together, then by stream, price and delay."""
    of_rule: dict[str, list[Score]] = defaultdict(list)
    for score in found:
        of_rule[score.rule].append(score)
    order = sorted((r for r in rules if r.name in of_rule), key=lambda r: geometric(of_rule[r.name]))
    rows = [_row(rule, of_rule[rule.name]) for rule in order]
    head = ["rule", "tuned in hindsight", "geometric mean", "95 %", "worst", "mean excess", "retrainings / optimum's"]
    parts = [f"**Cost per hindsight optimum** ({_games(found)})", table(head, rows)]
    for title, key in (("stream", "stream"), ("price", "multiple"), ("label delay", "delay")):
        values = list(dict.fromkeys(getattr(s, key) for s in found))
        body = [[_bold(r), *(_cell(of_rule[r.name], key, v) for v in values)] for r in order]
        parts += [f"**By {title}**: geometric mean / worst", table(["rule", *map(str, values)], body)]
    return "\n\n".join(parts)


def _row(rule: Contender, found: Sequence[Score]) -> list[str]:
    low, high = interval(found)
    worst = max(s.ratio for s in found)
    retrainings = sum(s.retrainings for s in found) / max(sum(s.needed for s in found), 1)
    tuned = f"yes, best of {len(rule.variants)}" if rule.tuned else "no"
    means = f"{geometric(found):.3f}", f"{low:.3f}-{high:.3f}", f"{worst:.2f}"
    excess = float(np.mean([s.excess for s in found]))
    return [_bold(rule), tuned, *means, f"{excess:.2f}", f"{retrainings:.2f}"]


def _bold(rule: Contender) -> str:
    return f"**{rule.name}**" if rule.ours else rule.name


def _cell(found: Sequence[Score], key: str, value: object) -> str:
    part = [s for s in found if getattr(s, key) == value]
    return f"{geometric(part):.3f} / {max(s.ratio for s in part):.2f}"


def _games(found: Sequence[Score]) -> str:
    counted = [len({getattr(s, key) for s in found}) for key in ("stream", "multiple", "seed", "delay")]
    return "{} streams x {} prices x {} seeds x {} label delays".format(*counted)
