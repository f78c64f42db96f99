"""The recommender's scene: MovieLens from 2004 on, a quarter a batch, through a real endpoint, bucket and daemon."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from retrainer.demo import movielens, shop
from retrainer.demo.movielens import Quarter
from retrainer.demo.rivals import compare
from retrainer.demo.scene import Scene, alone, running, where
from retrainer.demo.view import View, ways_table
from retrainer.wiring import load_policy

MODEL = "recommender"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to replay and where to leave everything."""

    folder: Path
    wheels: Path
    policies: Path
    start: int = 2004
    batches: int | None = None


def play(plan: Plan, console: Console) -> Mapping[str, Any]:
    """Run the whole loop over the replay; returns the figures that are shown and stored in results.json."""
    with alone(plan.folder):
        return _play(plan, console)


def _play(plan: Plan, console: Console) -> Mapping[str, Any]:
    quarters = movielens.read(plan.wheels, start=plan.start)[: _last(plan)]
    started = time.monotonic()
    with View(console, len(quarters)) as view:
        with running(MODEL, plan.folder, plan.policies, view) as scene:
            replay = Replay(scene)
            for done, quarter in enumerate(quarters):
                view.batch(quarter.name, done)
                replay.play(quarter)
                if done == 0:
                    first_model = scene.champion(plan.folder / "first.tar.gz")
            seen = {"requests": replay.score.requests, **scene.keep()}
        view.tell("the replay is done; now the same with the first model for ever, and retrained after every batch")
        hyperparameters = load_policy(plan.policies / f"{MODEL}.yaml").action.candidates[0].hyperparameters
        folder = plan.folder / "rivals"
        never, always = compare(folder, first_model, quarters, hyperparameters, lambda n: view.batch("comparison", n))
        view.batch("comparison", len(quarters))
    ways = {
        "never": _told(never.score, 0, always.score),
        "by this policy": _told(replay.score, seen["generation"] - 1, always.score),
        "after every batch": _told(always.score, always.retrainings, always.score),
    }
    results = {"ways": ways, **seen, "seconds": round(time.monotonic() - started, 1)}
    (plan.folder / "results.json").write_text(json.dumps(results, indent=2))
    console.print(ways_table(ways.items()))
    for name, place in where(plan.folder).items():
        console.print(f"{name:>10}  {place}", highlight=False, soft_wrap=True)
    return results


def _last(plan: Plan) -> int | None:
    return None if plan.batches is None else plan.batches + 1


class Replay:
    """The shop in the scene."""

    def __init__(self, scene: Scene) -> None:
        self.score = shop.Score()
        self._scene = scene
        self._shop = shop.Shop()

    def play(self, quarter: Quarter) -> None:
        """One quarter: ask, log, hand in, and wait until the loop has done all that follows.

        Before the first quarter nothing serves yet: its rows alone make the policy ask for the first model.
        """
        requests = self._shop.requests(quarter)
        if quarter.name == "before":
            requests = []
        else:
            answers = shop.shown(self._scene.ask(shop.body(requests)))
            self.score.add(shop.ranks(requests, answers))
            self._scene.log(quarter.name, shop.predictions(requests, answers))
        self._scene.hand_in(quarter.name, shop.batch(quarter, requests))


def _told(score: shop.Score, retrainings: float, always: shop.Score) -> dict[str, float]:
    return {
        "retrainings": retrainings,
        "hit_rate_at_10": score.hit_rate,
        "ndcg_at_10": score.ndcg,
        "share_of_always": score.ndcg / always.ndcg if always.ndcg else 0.0,
    }
