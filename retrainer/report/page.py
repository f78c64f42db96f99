"""A document as one HTML file that loads nothing and runs nothing: for a phone as for a desk, by day and by night."""

from collections.abc import Sequence
from html import escape

from retrainer.explain import printable
from retrainer.report import drawing, words
from retrainer.report.document import Column, Document, Unused
from retrainer.report.shapes import Bars, Both, Density

LISTED_MAX = 1_000
"""Columns and refused batches that are listed; the JSON has all columns."""

OPEN_MAX = 12
"""Plots that are open at once; the others are a click away."""


def page(document: Document) -> str:
    """The page. Whatever is in the document stays text in it."""
    sections = (
        _head(document),
        _windows(document),
        _unused("Columns that could not be used", document["unusable"], len(document["unusable"])),
        _unused("Batches that were refused", document["refused"], document["refused_batches"]),
        _cards(document["columns"]),
        _table(document["columns"]),
        _FOOT,
    )
    title = _text(f"{document['model']}: drift at {document['decision']}")
    return _PAGE.format(title=title, style=_STYLE, body="\n".join(part for part in sections if part))


# --- the parts ---


def _head(document: Document) -> str:
    measured_at = f", measured {_text(words.moment(document['measured_at']))}" if document["measured_at"] else ""
    return (
        f"<header><h1>{_text(document['model'])}</h1>"
        f"<p class='soft'>decision {_text(document['decision'])}{measured_at}</p></header>"
        f"<p class='verdict {'far' if document['drifted'] else 'near'}'>{_text(words.headline(document))}.</p>"
    )


def _windows(document: Document) -> str:
    tiles = [
        _box("current window", words.rows(document["current"]), words.batches(document["current"]), "new"),
        _box("reference window", words.rows(document["reference"]), words.batches(document["reference"]), "old"),
    ]
    tiles += [
        _box(name, words.figure(found["value"]), f"{found['metric']}, {found['labels']:,} labels")
        for name, found in (("performance", document["performance"]), ("estimated performance", document["estimated"]))
        if found
    ]
    return f"<div class='tiles'>{''.join(tiles)}</div>"


def _box(name: str, value: str, below: str, side: str = "") -> str:
    key = f"<i class='key {side}'></i>" if side else ""
    return (
        f"<div class='tile'><span class='soft'>{key}{_text(name)}</span><b>{_text(value)}</b>"
        f"<span class='soft'>{_text(below)}</span></div>"
    )


def _unused(heading: str, found: Sequence[Unused], total: int) -> str:
    if not total:
        return ""
    shown = found[:LISTED_MAX]
    rows = "".join(
        f"<tr><td>{_text(words.short(u['what']))}</td><td>{_text(words.short(u['why']))}</td></tr>" for u in shown
    )
    more = f"<p class='soft'>and {total - len(shown):,} more</p>" if total > len(shown) else ""
    return f"<section><h2>{heading}: {total:,}</h2><div class='box'><table>{rows}</table></div>{more}</section>"


def _cards(columns: Sequence[Column]) -> str:
    drawn = [column for column in columns if column["shape"]]
    if not drawn:
        return ""
    cards = [_card(column) for column in drawn]
    rest = "".join(cards[OPEN_MAX:])
    folded = f"<details><summary>{len(drawn) - OPEN_MAX} more</summary><div class='cards'>{rest}</div></details>"
    of = f"the {len(drawn)} furthest of {len(columns)}" if len(drawn) < len(columns) else "the furthest first"
    return (
        f"<section><h2>What changed</h2><p class='soft'><i class='key old'></i>reference "
        f"<i class='key new'></i>current; {of}</p>"
        f"<div class='cards'>{''.join(cards[:OPEN_MAX])}</div>{folded if rest else ''}</section>"
    )


def _card(column: Column) -> str:
    drawn = column["shape"]
    assert drawn
    times = column["times_threshold"]
    facts = [f"{column['test']} {words.figure(column['score'])}, threshold {column['threshold']:g}"]
    facts += [f"nulls {words.nulls(column)}"] if words.nulls(column) else []
    facts += [f"since {words.moment(column['since'])}"] if column["since"] else []
    plot = _density(drawn, column["column"]) if drawn["kind"] == "density" else _bars(drawn)
    said = f"{words.times(times)}" if column["drifted"] else "no drift"
    return (
        f"<article><h3><span>{_text(words.short(column['column']))}</span>"
        f"<em class='{'far' if column['drifted'] else 'near'}'>{said}</em></h3>"
        f"{drawing.gauge(times, drifted=column['drifted'])}"
        f"<p class='soft'>{_text('; '.join(facts))}</p>{plot}</article>"
    )


def _density(drawn: Density, name: str) -> str:
    tails = [
        f"{side} {words.figure(bound)}: {words.pair(shares)}"
        for side, bound, shares in (
            ("below", drawn["low"], drawn["below"]),
            ("from", drawn["high"], drawn["above"]),
        )
        if max(shares) >= 0.001
    ]
    told = f"<p class='soft'>{_text('; '.join(tails))}</p>" if tails else ""
    return (
        f"{drawing.density(drawn, _text(f'{words.short(name)} in both windows'))}"
        f"<p class='ends'><span>{words.figure(drawn['low'])}</span><span>{words.figure(drawn['high'])}</span></p>{told}"
    )


def _bars(drawn: Bars) -> str:
    """Each category's bars on one scale; what is told of many together has none, as it would be all that is seen."""
    top = max((max(bar["shares"]) for bar in (*drawn["bars"], *drawn["new"])), default=1.0)
    rows = [_bar(bar["name"], bar["shares"], top) for bar in drawn["bars"]]
    rows += [_bar("all others", drawn["rest"], None)] if max(drawn["rest"]) > 0 else []
    rows += [_bar(bar["name"], bar["shares"], top, is_new=True) for bar in drawn["new"]]
    rows += [_bar("others", (0.0, drawn["new_rest"]), None, is_new=True)] if drawn["new_rest"] > 0 else []
    return f"<table class='bars'>{''.join(rows)}</table>"


def _bar(name: str, shares: Both, top: float | None, *, is_new: bool = False) -> str:
    new = "<em class='far'>new</em> " if is_new else ""
    bar = "" if top is None else drawing.bar(*shares, top)
    return (
        f"<tr{' class=soft' if top is None else ''}><td><span>{new}{_text(name)}</span></td><td>{bar}</td>"
        f"<td class='n'>{_text(words.pair(shares))}</td></tr>"
    )


def _table(columns: Sequence[Column]) -> str:
    if not columns:
        return ""
    heads = ("column", "test", "score", "certainly", "threshold", "", "p-value", "nulls", "unseen", "since (UTC)")
    head = "".join(f"<th{' class=n' if n > 1 else ''}>{name}</th>" for n, name in enumerate(heads))
    body = "".join(_row(column) for column in columns[:LISTED_MAX])
    more = len(columns) - LISTED_MAX
    rest = f"<p class='soft'>and {more:,} more: the JSON has all</p>" if more > 0 else ""
    return (
        f"<section><h2>All columns</h2><div class='box tall'><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>{rest}</section>"
    )


def _row(column: Column) -> str:
    figures = (
        words.figure(column["score"]),
        words.between(column),
        f"{column['threshold']:g}",
        words.times(column["times_threshold"]) if column["drifted"] else "",
        words.chance(column["p_value"]),
        words.nulls(column),
        f"{column['unseen']:.1%}" if column["unseen"] else "",
        words.moment(column["since"]),
    )
    cells = "".join(f"<td class='n'>{_text(figure)}</td>" for figure in figures)
    kind = " class=drifted" if column["drifted"] else ""
    return (
        f"<tr{kind}><td><span>{_text(words.short(column['column']))}</span></td>"
        f"<td class='test'>{_text(column['test'])}</td>{cells}</tr>"
    )


def _text(given: str) -> str:
    return escape(printable(given))


_FOOT = """<footer class='soft'><p>A column has drifted when its score reaches its threshold (of ks, chisquare and
g_test, when the p-value falls below it); 2.0x is twice the threshold, or of p-values twice as many orders of magnitude.
The score says how much has changed, the p-value how sure it is that anything has, both window sizes allowed for.
"Certainly" is what the test gives on the rows at the least and at the most, where it was read off counts. Shares
are written reference → current. Times are UTC.</p></footer>"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark;
  --ink: #1c2430; --soft: #5d6878; --line: #e2e6ec; --paper: #fff; --panel: #f6f8fa; --old: #aeb7c4; --new: #1f5fbf;
  --wash: rgba(31,95,191,.14); --bad: #b93a0b; --good: #14804a; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6eaf0; --soft: #9aa6b6; --line: #2c3644; --paper: #12171e; --panel: #1a212b; --old: #5b6779; --new: #6aa8ff;
  --wash: rgba(106,168,255,.2); --bad: #ff8a5c; --good: #4cc38a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 16px 40px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 18px; margin: 32px 0 10px; }
h1, h3, p, td { overflow-wrap: anywhere; } p { margin: 4px 0; } .soft { color: var(--soft); font-size: 13px; }
.verdict { font-size: 17px; margin: 16px 0; padding: 12px 16px; background: var(--panel);
  border-left: 4px solid var(--good); } .verdict.far { border-color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 12px; }
.tile, article { border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; min-width: 0; }
.tile { display: flex; flex-direction: column; } .tile b { font-size: 22px; font-weight: 600; }
.key { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px; }
.key.old { background: var(--old); } .key.new { background: var(--new); } .key + .key { margin-left: 12px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(310px, 100%), 1fr)); gap: 12px;
  align-items: start; }
h3 { font-size: 15px; margin: 0 0 6px; display: flex; justify-content: space-between; gap: 12px; }
h3 span, td:first-child span { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2;
  overflow: hidden; }
em { font-style: normal; font-weight: 600; white-space: nowrap; } em.far { color: var(--bad); }
em.near { color: var(--soft); font-weight: 400; }
svg { display: block; width: 100%; } svg.density { height: 90px; margin-top: 8px; } svg.bar { height: 12px; }
svg.gauge { height: 6px; border-radius: 3px; margin-bottom: 6px; }
.density .old { fill: var(--old); } .bar .old { fill: var(--old); } .bar .new { fill: var(--new); }
.density .new { fill: var(--wash); stroke: var(--new); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
.gauge .track { fill: var(--line); } .gauge .far { fill: var(--bad); } .gauge .near { fill: var(--old); }
.gauge .mark { fill: var(--ink); }
.ends { display: flex; justify-content: space-between; color: var(--soft); font-size: 12px;
  border-top: 1px solid var(--line); }
.box { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
.tall { max-height: 70vh; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th, td { text-align: left; vertical-align: top; padding: 6px 10px; border-bottom: 1px solid var(--line); }
th { position: sticky; top: 0; background: var(--panel); color: var(--soft); font-weight: 600; white-space: nowrap; }
td:first-child { min-width: 150px; } tr:last-child td { border-bottom: 0; }
tr.drifted td:first-child { font-weight: 600; box-shadow: inset 3px 0 var(--bad); }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.test { white-space: nowrap; }
.bars { margin-top: 6px; font-size: 12.5px; table-layout: fixed; } .bars td { border: 0; padding: 2px 0; }
.bars td:first-child { width: 40%; min-width: 0; padding-right: 8px; } .bars td:last-child { width: 104px; }
.bars td:nth-child(2) { vertical-align: middle; } .bars tr.soft { color: var(--soft); }
summary { cursor: pointer; padding: 12px 0; color: var(--soft); }
footer { margin-top: 32px; border-top: 1px solid var(--line); padding-top: 12px; }
@media print { .tall { max-height: none; } article { break-inside: avoid; } }
"""
