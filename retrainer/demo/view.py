"""What the demonstration shows: every decision with its reason as it is made, and at the end a table."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

_COLOURS = {
    "retraining": "bold yellow",
    "promoted": "bold green",
    "refused": "magenta",
    "execution_failed": "bold red",
    "data_unusable": "red",
    "evidence_failed": "red",
    "effect_failed": "red",
    "cooling_down": "cyan",
    "too_few_rows": "cyan",
    "over_budget": "cyan",
    "running": "cyan",
}


class View:
    """A line a decision and a bar below; off a terminal the lines alone."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar: TaskID = self._progress.add_task("starting", total=total)

    def __enter__(self) -> "View":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tell(self, text: str) -> None:
        self._progress.console.print(text, style="bold", highlight=False)

    def batch(self, name: str, done: int) -> None:
        self._progress.update(self._bar, description=name, completed=done)

    def decision(self, batch: str, told: Mapping[str, Any]) -> None:
        style = _COLOURS.get(told["reason"], "dim")
        line = f"{batch:>7}  {told['decision']:<16} {told['reason']:<18} {told['detail']}"
        self._progress.console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def days_table(days: Iterable[Mapping[str, Any]]) -> Table:
    """The classifier's days: how often the serving model was right, by the art of the pictures."""
    return _answers("Answers on the pictures of each day, before anything was learned from them", days)


def exhibit_table(both: Iterable[Mapping[str, Any]], count: int) -> Table:
    """The same pictures before and after."""
    return _answers(f"The same {count} pictures, which no model has learned from, before and after", both)


def _answers(title: str, days: Iterable[Mapping[str, Any]]) -> Table:
    shown = Table(title=title)
    for heading in ("", "model", "pictures", "of 3.0", "right", "of 4.0", "right", "all right"):
        shown.add_column(heading, justify="right" if heading else "left")
    for day in days:
        arts = [
            cell for art in ("3.0", "4.0") for cell in (str(day["asked"].get(art, 0)), _share(day["accuracy"][art]))
        ]
        asked = str(sum(day["asked"].values()))
        shown.add_row(day["name"], f"g{day['generation']}", asked, *arts, _share(day["accuracy"]["all"]))
    return shown


def steps_table(seconds: Mapping[str, float], load: float, cores: int) -> Table:
    """From the event to the new endpoint, as seconds since the event; and how busy the machine was meanwhile."""
    shown = Table(title=f"Seconds since the event\n(load average {load:.1f} on {cores} cores)")
    shown.add_column("what has happened")
    shown.add_column("after", justify="right")
    for what, after in seconds.items():
        shown.add_row(what.replace("_", " "), f"{after:.1f} s")
    return shown


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def ways_table(rows: Iterable[tuple[str, Mapping[str, float]]]) -> Table:
    """The recommender's comparison: a row a way of retraining."""
    shown = Table(title="Served recommendations, all on the same requests")
    for heading in ("retrained", "times", "hit rate @10", "nDCG @10", "of always"):
        shown.add_column(heading, justify="left" if heading == "retrained" else "right")
    for name, row in rows:
        shown.add_row(
            name,
            f"{row['retrainings']:.0f}",
            f"{row['hit_rate_at_10']:.4f}",
            f"{row['ndcg_at_10']:.4f}",
            f"{row['share_of_always']:.1%}",
        )
    return shown
