"""The page is one file that loads nothing, and whatever a stranger wrote stays text in it."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from retrainer.backtest.page import page
from retrainer.backtest.plots import cumulative, timeline
from retrainer.backtest.summary import costs
from tests.backtest.example import example, hostile

STRANGE = '<script>document.title="taken"</script>"\'</td></table>&amp;<img src=x onerror=alert(1)>{0}%{x}\u202e'
HEAVY = "background:url("


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


def figures(text: str) -> list[Any]:
    return [json.loads(found) for found in re.findall(r"<script type='application/json'[^>]*>(.*?)</script>", text)]


def texts(value: Any) -> list[str]:
    """Every text anywhere in a figure."""
    if isinstance(value, dict):
        return [t for v in value.values() for t in texts(v)]
    if isinstance(value, list | tuple):
        return [t for v in value for t in texts(v)]
    return [value] if isinstance(value, str) else []


def test_nothing_is_loaded_from_anywhere_and_plotly_is_there_once() -> None:
    made = page((example(), example("never", retrain=())))
    for tag, attributes in Elements(made).found:
        assert not attributes.keys() & {"src", "href", "srcset", "data", "action"}, tag
    assert made.count("plotly.js v") == 1
    assert "default-src 'none'" in made
    assert HEAVY not in made.partition("<body>")[0]


def test_what_a_stranger_wrote_is_text_in_the_page() -> None:
    plain, strange = Elements(page((example(),))), Elements(page((hostile(STRANGE),)))
    assert [tag for tag, _ in strange.found] == [tag for tag, _ in plain.found]
    assert all(not name.startswith("on") for _, attributes in strange.found for name in attributes)
    assert "<script>document.title" in strange.text
    assert "\u202e" not in strange.text


def test_what_a_stranger_wrote_is_text_in_the_plots() -> None:
    bad = hostile(STRANGE)
    for figure in (timeline((bad, bad)), cumulative((bad, bad))):
        for text in texts(figure):
            assert not re.search(r"<(?!br>)", text), text
            assert "\u202e" not in text


def test_the_plots_survive_the_way_into_the_page_unchanged() -> None:
    given = (example(), hostile(STRANGE))
    assert figures(page(given)) == [json.loads(json.dumps(f)) for f in (timeline(given), cumulative(given))]


def test_every_figure_of_the_terminal_is_on_the_page() -> None:
    made, first = page((example(), example("never", retrain=()))), example()
    shown = Elements(made).text
    assert f"{first.cost:,.0f}" in shown
    assert "the end of the warm-up" in shown
    assert "The decisions that mattered" in shown
    assert "None of the 1 compared is cheaper" in shown


def test_the_last_point_of_a_cumulative_line_is_the_cost() -> None:
    first, other = example(), example("never", retrain=())
    data = cumulative((first, other))["data"]
    ends = {(t["name"], t.get("yaxis", "y")): t["y"][-1] for t in data}
    assert first.optimum is not None
    assert ends["regret", "y"] == pytest.approx(sum(costs(first)), rel=1e-5)
    assert ends["hindsight optimum", "y"] == pytest.approx(first.optimum.cost, rel=1e-5)
    assert ends["never", "y2"] == pytest.approx(other.cost - first.optimum.cost, rel=1e-5)


def test_each_verdict_is_marked_once_with_its_reason_and_waits_are_bars() -> None:
    data = timeline((example(),))["data"]
    marked = {t["name"]: len(t["x"]) for t in data if t.get("yaxis") == "y4"}
    assert marked == {"first model": 1, "promoted": 2, "refused": 1}
    refused = next(t for t in data if t["name"] == "refused")
    assert "misses the least gain" in refused["hovertext"][0]
    bars = {t["name"]: len(t["x"]) for t in data if t["type"] == "bar"}
    assert bars == {"cooling_down": 3, "training": 4}


def test_a_result_with_little_in_it_still_makes_a_page() -> None:
    made = example(retrain=(), price=None)
    page((replace(made, optimum=None, scores=tuple(replace(s, drift_share=None) for s in made.scores)),))
    nothing = replace(made, optimum=None, scores=(), steps=(), retrainings=(), first_served=None)
    assert "no model was ever promoted" in page((nothing,))


def test_long_histories_are_drawn_smoothed_over_their_own_dots() -> None:
    data = timeline((example(batches=400),))["data"]
    dots = [t for t in data if t.get("mode") == "markers" and t["name"] == ""]
    assert len(dots) == 1
    assert len(dots[0]["x"]) == 390


@pytest.mark.browser
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_browser_without_a_network_draws_it_and_runs_nothing_of_a_stranger(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(page((hostile(STRANGE), example())))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=8000", "--dump-dom"]
    ran = subprocess.run([*command, *offline, file.as_uri()], capture_output=True, timeout=120, env=os.environ)
    drawn = ran.stdout.decode()
    assert drawn.count('class="main-svg"') >= 2
    assert "<title>taken</title>" not in drawn
    assert 'onerror="alert(1)"' not in drawn
