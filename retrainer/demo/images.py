"""The classifier's scene: Google's emoji as of 3.0 in production, and one day most phones draw them as of 4.0."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from retrainer.demo import before_after, emoji, pictures
from retrainer.demo.pictures import Answers, Day, Picture, Score
from retrainer.demo.scene import Scene, alone, running, where
from retrainer.demo.view import View, days_table, exhibit_table, steps_table

MODEL = "images"

FIRST = Day("before", 0, 2400, new_share=0)
DAYS = (Day("day-1", 1, 400, 0), Day("day-2", 2, 400, 0), Day("day-3", 3, 1200, 0.7), Day("day-4", 4, 400, 0.7))
"""From day 3 on 7 of 10 phones have the new art; the other three still have the old one, not to be forgotten."""
RELEASE = DAYS[2]

EXHIBIT = Day("exhibit", 99, 512, new_share=0.5)
"""Pictures that are never handed in: asked about before the release and at the end."""

ASKED_AT_ONCE = 200
"""Pictures in one invocation: SageMaker takes up to 6 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where the two packages lie, and where to leave everything."""

    folder: Path
    packages: Path
    policies: Path
    seed: int = 0


def play(plan: Plan, console: Console) -> Mapping[str, Any]:
    """Run the whole loop over the days; returns the figures that are shown and stored in results.json."""
    with alone(plan.folder):
        art = emoji.read(plan.packages)
        started = time.monotonic()
        with View(console, len(DAYS) + 1) as view, running(MODEL, plan.folder, plan.policies, view) as scene:
            gallery = Gallery(scene, art, plan.seed)
            for done, day in enumerate((FIRST, *DAYS)):
                view.batch(day.name, done)
                gallery.live(day)
            view.batch("done", len(DAYS) + 1)
            gallery.look_back(plan.folder / "before_after.png")
            results = {**gallery.results, **scene.keep(), "seconds": round(time.monotonic() - started, 1)}
        (plan.folder / "results.json").write_text(json.dumps(results, indent=2))
        console.print(days_table(results["days"]))
        console.print(exhibit_table(results["never_learned_from"], EXHIBIT.pictures))
        console.print(steps_table(results["seconds_since_event"], results["load_average"], os.cpu_count() or 1))
        for name, place in {**where(plan.folder), "picture": f"{plan.folder}/before_after.png"}.items():
            console.print(f"{name:>10}  {place}", highlight=False, soft_wrap=True)
    return results


class Gallery:
    """The application in the scene. `results` are its figures so far."""

    def __init__(self, scene: Scene, art: emoji.Art, seed: int) -> None:
        self.results: dict[str, Any] = {"days": []}
        self._scene, self._art, self._seed = scene, art, seed
        self._exhibit = pictures.taken(art, EXHIBIT, seed)
        self._before: Answers | None = None

    def live(self, day: Day) -> None:
        """One day: ask, log, hand in what users said, and wait until the loop has done all that follows.

        Before the first day nothing serves yet: its pictures alone make the policy ask for the first model.
        """
        taken = pictures.taken(self._art, day, self._seed)
        if day is FIRST:
            self._scene.hand_in(day.name, pictures.labelled(taken))
            return
        if day is RELEASE:
            self._before = self._ask(self._exhibit)
        answers = self._ask(taken)
        self._scene.log(day.name, pictures.predictions(taken, answers))
        self.results["days"].append(_score(day.name, answers, taken))
        watch = Watch(self._scene, pictures.body(self._exhibit[:1]), answers.weights_sha256)
        told = len(self._scene.decisions)
        self._scene.hand_in(day.name, pictures.labelled(taken), watch.look)
        if day is RELEASE:
            self.results["seconds_since_event"] = watch.seconds(self._scene.decisions[told:])
            self.results |= {"asked_meanwhile": watch.asked, "load_average": round(os.getloadavg()[0], 1)}

    def look_back(self, target: Path) -> None:
        """The same pictures as before the release, asked about again; both answers beside one another in a picture."""
        before, after = self._before, self._ask(self._exhibit)
        assert before, "the release has been lived through"
        both = [_score(when, answers, self._exhibit) for when, answers in (("before", before), ("after", after))]
        self.results["never_learned_from"] = both
        accuracies = {art: (both[0]["accuracy"][art], both[1]["accuracy"][art]) for art in emoji.PACKAGES}
        before_after.draw(target, self._art, self._exhibit, before.labels, after.labels, accuracies)

    def _ask(self, asked: Sequence[Picture]) -> Answers:
        parts = [asked[n : n + ASKED_AT_ONCE] for n in range(0, len(asked), ASKED_AT_ONCE)]
        return pictures.answers([self._scene.ask(pictures.body(part)) for part in parts])


class Watch:
    """Asks the endpoint again and again, from the moment before the event on, until another model answers."""

    def __init__(self, scene: Scene, body: bytes, weights_sha256: str) -> None:
        self.asked = 0
        self._scene, self._body, self._known = scene, body, weights_sha256
        self._event_at, self._since = datetime.now(UTC), time.monotonic()
        self._answered: float | None = None

    def look(self) -> None:
        if self._answered is None:
            self.asked += 1
            if pictures.answers([self._scene.ask(self._body)]).weights_sha256 != self._known:
                self._answered = time.monotonic() - self._since

    def seconds(self, decisions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """What the ledger has decided, and when the new model was first heard, in seconds since the event."""
        found = {}
        for reason in ("retraining", "promoted", "refused"):
            at = [datetime.fromisoformat(told["at"]) for told in decisions if told["reason"] == reason]
            if at:
                found[reason] = round((at[0] - self._event_at).total_seconds(), 1)
        if self._answered is not None:
            found["new_model_answers"] = round(self._answered, 1)
        return dict(sorted(found.items(), key=lambda step: step[1]))


def _score(name: str, answers: Answers, asked: Sequence[Picture]) -> dict[str, Any]:
    score = Score()
    score.add(asked, answers.labels)
    return {"name": name, "generation": answers.generation, "asked": score.asked, "accuracy": score.told()}
