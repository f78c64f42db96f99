"""A backtest as one HTML file that needs no network: plots, figures with intervals, decisions that mattered."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from retrainer.backtest import plots
from retrainer.backtest.report import (
    Sheet,
    comparison,
    day,
    figure,
    figures,
    headline,
    interval,
    retrainings,
    said,
    span,
    why_not,
)
from retrainer.backtest.results import Result
from retrainer.backtest.summary import Summary, alike, summarise, turns
from retrainer.explain import MEANING, printable

LISTED = 1_000
"""Decisions that mattered, listed at most; the JSON has all."""

TALL = 14
"""Rows of a table; one with more is scrolled."""


def page(results: Sequence[Result]) -> str:
    """The page of the first result, compared with the others."""
    results = alike(results)
    result, found = results[0], summarise(results)
    sections = [
        f"<header><h1>{_text(result.model)}</h1><p class='soft'>{_text(headline(result))}</p></header>",
        f"<p class='verdict'>{_text(said(results, found))}</p>",
        _tiles(result, found[0]),
        *([_table(comparison(results, found), heading="The policies compared")] if len(results) > 1 else []),
        _plot("timeline", "What would have served, and when it would have been retrained", plots.timeline(results)),
        _plot("cumulative", "What it would have cost", plots.cumulative(results)),
        _table(figures(result, found[0]), heading="Figures"),
        _table(retrainings(result, listed=LISTED), heading="Retrainings"),
        _table(_decisions(result), heading="The decisions that mattered", lead=True),
        _table(why_not(result)),
        _FOOT,
    ]
    return _PAGE.format(
        title=_text(f"{result.model}: backtest of {result.name}"),
        style=_STYLE,
        body="\n".join(sections),
        # Plotly's own file: it comes with Evidently, and nothing is loaded from anywhere.
        plotly=files("plotly").joinpath("package_data/plotly.min.js").read_text(),
        script=_SCRIPT,
    )


def _tiles(result: Result, summary: Summary) -> str:
    unpaid = f", {summary.unpaid} unpaid" if summary.unpaid is not None else ""
    ratio, spent, late = summary.ratio, summary.money, summary.latencies
    tiles = [
        ("cost, in errors", figure(summary.cost.value), interval(summary.cost)),
        ("of the best possible", f"{ratio.value:.2f} x" if ratio else "-", interval(ratio, digits=2)),
        ("retrainings", str(summary.retrainings), f"{summary.fruitless} fruitless{unpaid}"),
        ("reaction, half within", span(late[0]) if late else "-", f"all within {span(late[-1])}" if late else ""),
    ]
    if spent:
        tiles.insert(1, (f"money, {result.currency}", figure(spent.value), interval(spent)))
    shown = (
        f"<div class='tile'><span class='soft'>{_text(name)}</span><b>{_text(value)}</b>"
        f"<span class='soft'>{_text(below)}</span></div>"
        for name, value, below in tiles
    )
    return f"<div class='tiles'>{''.join(shown)}</div>"


def _decisions(result: Result) -> Sheet:
    mattered = turns(result)
    rows = tuple(
        (day(s.at), s.decision, s.event_kind, s.reason, s.detail or MEANING.get(s.reason, ""), ", ".join(s.triggers))
        for s in mattered[:LISTED]
    )
    rest = len(mattered) - len(rows)
    title = f"{len(mattered)} of {len(result.steps)}: after these something was different, or a trigger began to wait."
    return Sheet(
        title=title,
        columns=("at (UTC)", "decision", "came", "reason", "why", "triggers met"),
        rows=rows,
        notes=(f"and {rest} more: the JSON has all",) if rest else (),
    )


def _table(sheet: Sheet, *, heading: str = "", lead: bool = False) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        sides = (" class='n'" if n in sheet.right else "" for n in range(len(cells)))
        return "".join(f"<{tag}{side}>{_text(cell)}</{tag}>" for side, cell in zip(sides, cells, strict=True))

    head = f"<thead><tr>{row(sheet.columns, 'th')}</tr></thead>"
    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in sheet.rows)
    title = f"<h2>{_text(heading or sheet.title)}</h2>"
    if lead:
        title += f"<p class='soft'>{_text(sheet.title)}</p>"
    notes = "".join(f"<p class='soft'>{_text(note)}</p>" for note in sheet.notes)
    box = "box tall" if len(sheet.rows) > TALL else "box"
    return f"<section>{title}<div class='{box}'><table>{head}<tbody>{body}</tbody></table></div>{notes}</section>"


def _plot(name: str, heading: str, figure: Mapping[str, Any]) -> str:
    # Within a script element only "<" could end it; JSON has another way to write that.
    values = json.dumps(figure, allow_nan=False).replace("<", "\\u003c")
    return (
        f"<section><h2>{_text(heading)}</h2><div class='plot' id='{name}'></div>"
        f"<script type='application/json' data-plot='{name}'>{values}</script></section>"
    )


def _text(given: str) -> str:
    return escape(printable(given))


_FOOT = """<footer class='soft'><p>Every decision was made by the daemon's own rules on a virtual clock. The model is a
stand-in of the family named above, labels arrive as late as it says, and a challenger serves only once its training
has ended and the gate has let it pass. The hindsight optimum is the cheapest set of retrainings anybody could have
chosen who knew the whole history, under the same delays. Intervals are from a block bootstrap over the batches and
take the decisions as they were made.</p></footer>"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark;
  --ink: #1c2430; --soft: #5d6878; --line: #e2e6ec; --paper: #fff; --panel: #f6f8fa; --own: #1f5fbf; --best: #14804a;
  --never: #98a2b0; --bad: #c2410c; --wait: #b7791f; --wash: rgba(183,121,31,.16);
  --other1: #8b3fb0; --other2: #0f8a94; --other3: #c0392b; --other4: #6b7a1e; --other5: #a0522d; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6eaf0; --soft: #9aa6b6; --line: #2c3644; --paper: #12171e; --panel: #1a212b; --own: #6aa8ff; --best: #4cc38a;
  --never: #76818f; --bad: #ff8a5c; --wait: #e0a84a; --wash: rgba(224,168,74,.18);
  --other1: #c792ea; --other2: #56c5cf; --other3: #ff7b72; --other4: #b6c85a; --other5: #d9a078; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 48px; }
h1 { font-size: 28px; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 18px; margin: 40px 0 10px; }
p { margin: 4px 0; overflow-wrap: anywhere; } .soft { color: var(--soft); font-size: 13px; }
.verdict { font-size: 17px; margin: 20px 0; padding: 14px 18px; background: var(--panel);
  border-left: 4px solid var(--own); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 12px 16px; display: flex; flex-direction: column;
  overflow-wrap: anywhere; min-width: 0; }
.tile b { font-size: 25px; font-weight: 600; font-variant-numeric: tabular-nums; }
.box { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
.tall { max-height: 480px; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { text-align: left; vertical-align: top; padding: 6px 12px; border-bottom: 1px solid var(--line);
  overflow-wrap: break-word; max-width: 460px; }
th { position: sticky; top: 0; background: var(--panel); color: var(--soft); font-weight: 600; white-space: nowrap; }
td:first-child { white-space: pre; }
tbody tr:last-child td { border-bottom: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.plot { min-height: 200px; } footer { margin-top: 40px; border-top: 1px solid var(--line); padding-top: 12px; }
@media print { .tall { max-height: none; } section { break-inside: avoid; } }
"""

_SCRIPT = """
"use strict";
const styles = () => getComputedStyle(document.documentElement);
const coloured = (value, from) =>
  typeof value === "string"
    ? (/^var\\(--\\w+\\)$/.test(value) ? from.getPropertyValue(value.slice(4, -1)).trim() : value)
  : Array.isArray(value) ? value.map((v) => coloured(v, from))
  : value && typeof value === "object"
    ? Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, from)])) : value;
const draw = () => document.querySelectorAll("script[data-plot]").forEach((given) => {
  const figure = coloured(JSON.parse(given.textContent), styles());
  Plotly.react(given.dataset.plot, figure.data, figure.layout, { responsive: true, displayModeBar: false });
});
draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
"""
