"""The plots of a backtest as plotly figures in plain values.

A colour is written var(--name), and the page's script fills in the style sheet's. Texts may hold what a stranger wrote;
plotly reads a little HTML in them, so they are escaped here.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import accumulate
from textwrap import wrap
from typing import Any

from retrainer.backtest.report import asked, day, figure, gate, span, verdict
from retrainer.backtest.results import Result, Retraining
from retrainer.backtest.summary import Wait, costs, optimum_costs, waits
from retrainer.core.execution import Verdict
from retrainer.explain import printable

Figure = Mapping[str, Any]
Trace = dict[str, Any]

OTHERS = ("var(--other1)", "var(--other2)", "var(--other3)", "var(--other4)", "var(--other5)")
SMOOTHED_FROM = 200
"""Of more batches than these the single losses are dots, and the line is their running mean."""
UPRIGHT_MOST = 60
"""Of more retrainings than these the lines from their verdicts down would be all that is seen."""

_LOSSES = {
    "accuracy": "share of errors",
    "hit_rate_at_10": "share of misses",
    "mae": "absolute error",
    "rmse": "squared error",
}
_SYMBOLS = {Verdict.PROMOTED: ("star-triangle-up", "var(--best)"), None: ("circle-open", "var(--soft)")}
_REFUSED = ("x", "var(--bad)")


def timeline(results: Sequence[Result]) -> Figure:
    """Above: the mean loss of what served, with the retrainings. Below: drift, and what was waited for."""
    result = results[0]
    kept = waits(result.steps)
    rows = [*dict.fromkeys(wait.reason for wait in kept), "training"]
    drifts = any(s.drift_share is not None for s in result.scores)
    floor = min(0.34, 0.05 * len(rows) + 0.04)
    traces = [*_losses(results), *_markers(result), *_bands(result, kept)]
    axes: dict[str, Any] = {
        "xaxis": _axis(type="date", anchor="y3", range=_range(result)),
        "yaxis": _axis(title=_LOSSES.get(result.metric, "mean loss"), domain=[floor + (0.25 if drifts else 0.06), 1.0]),
        # The verdicts stand at the top whatever the losses are.
        "yaxis4": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        "yaxis3": _axis(domain=[0.0, floor], autorange="reversed", type="category", showgrid=False, automargin=True),
    }
    if drifts:
        traces.append(_drift(result))
        axes["yaxis2"] = _axis(title="drift share", domain=[floor + 0.05, floor + 0.18], range=[0, 1.02], nticks=3)
    shapes = [_upright(r, floor) for r in result.counted] if len(result.counted) <= UPRIGHT_MOST else []
    return {"data": traces, "layout": {**_layout(620), **axes, "barmode": "overlay", "bargap": 0.35, "shapes": shapes}}


def cumulative(results: Sequence[Result]) -> Figure:
    """Above: what each policy has cost up to each batch. Below: how much of it the optimum would have saved."""
    traces = []
    for n, result in enumerate(results):
        line = {"color": _colour(n), "width": 2.5 if n == 0 else 1.6}
        moments, own = [_stamp(s.at) for s in result.served], list(accumulate(costs(result)))
        name = _text(result.name)
        traces.append(_line(name, moments, own, line, group=name))
        best = optimum_costs(result)
        if best is None:
            continue
        least = list(accumulate(best))
        if n == 0:
            traces.append(_line("hindsight optimum", moments, least, _BEST, group="optimum"))
            if result.optimum and result.optimum.never:
                spent = list(accumulate(result.optimum.never))
                traces.append(_line("never retrained", moments, spent, _NEVER, group="never"))
        more = [a - b for a, b in zip(own, least, strict=True)]
        traces.append({**_line(name, moments, more, line, group=name), "yaxis": "y2", "showlegend": False})
    split = any(t.get("yaxis") == "y2" for t in traces)
    axes = {
        "xaxis": _axis(type="date", anchor="y2" if split else "y", range=_range(results[0])),
        "yaxis": _axis(title="cost so far, in errors", domain=[0.42, 1.0] if split else [0.0, 1.0], rangemode="tozero"),
    }
    if split:
        axes["yaxis2"] = _axis(title="above the optimum", domain=[0.0, 0.34], zerolinecolor="var(--best)")
    return {"data": traces, "layout": {**_layout(560), **axes}}


# --- what is drawn ---


def _losses(results: Sequence[Result]) -> Iterable[Trace]:
    result = results[0]
    moments = [_stamp(s.at) for s in result.served]
    own = [s.loss or 0.0 for s in result.served]
    rows = [s.rows or 1 for s in result.served]
    if len(own) > SMOOTHED_FROM:
        dots = {"color": "var(--own)", "size": 3, "opacity": 0.3}
        yield {**_line("", moments, own, {}), "mode": "markers", "marker": dots, "showlegend": False}
    if result.optimum and result.optimum.never:
        never = [loss / n for loss, n in zip(result.optimum.never, rows, strict=True)]
        # Where it is off the scale, what really served could not be seen beside it.
        beside = {"visible": "legendonly"} if max(never) > 4 * max(own) else {}
        yield {**_line("never retrained", moments, _smooth(never), _NEVER), **beside}
    if result.optimum:
        best = [loss / n for loss, n in zip(result.optimum.losses, rows, strict=True)]
        yield _line("hindsight optimum", moments, _smooth(best), _BEST)
    for n, other in enumerate(results[1:], start=1):
        theirs = [s.loss or 0.0 for s in other.served]
        line = {"color": _colour(n), "width": 1.4}
        shown = _line(_text(other.name), [_stamp(s.at) for s in other.served], _smooth(theirs), line)
        yield {**shown, "visible": "legendonly"}
    texts = [_text(f"{s.key}\n{day(s.at)}\nloss {s.loss:.4f}, {s.rows} rows, g{s.generation}") for s in result.served]
    line = {"color": "var(--own)", "width": 2.2}
    yield {**_line(_text(result.name), moments, _smooth(own), line), "hovertext": texts, "hoverinfo": "text"}


def _markers(result: Result) -> Iterable[Trace]:
    """One trace for each verdict, at the top: a retraining is there when its model could first serve."""
    by_verdict: dict[str, list[Retraining]] = {}
    for retraining in result.retrainings:
        by_verdict.setdefault("first model" if retraining.first else verdict(retraining), []).append(retraining)
    for name, found in by_verdict.items():
        symbol, colour = _SYMBOLS.get(found[0].verdict if found[0].ended_at else None, _REFUSED)
        if found[0].first:
            symbol, colour = "diamond-open", "var(--soft)"
        yield {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [_stamp(r.ended_at or r.planned_at) for r in found],
            "y": [0.97] * len(found),
            "yaxis": "y4",
            "marker": {"symbol": symbol, "color": colour, "size": 11, "line": {"width": 1.5, "color": colour}},
            "hovertext": [_told(r) for r in found],
            "hoverinfo": "text",
            "cliponaxis": False,
        }


def _upright(retraining: Retraining, floor: float) -> Trace:
    """A line from the row of trainings up to the verdict."""
    at = _stamp(retraining.ended_at or retraining.planned_at)
    line = {"color": "var(--soft)", "width": 0.8, "dash": "dot"}
    return {
        "type": "line",
        "x0": at,
        "x1": at,
        "yref": "paper",
        "y0": floor,
        "y1": 0.98,
        "line": line,
        "layer": "below",
    }


def _told(retraining: Retraining) -> str:
    took = f", ended {span(retraining.ended_at - retraining.planned_at)} later" if retraining.ended_at else ""
    lines = [
        f"{retraining.name}: {verdict(retraining)}",
        f"decided {day(retraining.planned_at)}{took}",
        asked(retraining),
        f"gate: {gate(retraining)}. {retraining.why}",
        f"{retraining.rows} rows in {retraining.batches} batches",
    ]
    if retraining.avoided is not None:
        lines.append(f"avoided {figure(retraining.avoided)} errors while it served")
    return _text("\n".join(lines))


def _bands(result: Result, kept: Sequence[Wait]) -> Iterable[Trace]:
    """What was waited for and when, one row a guard; and the trainings."""
    for reason in dict.fromkeys(wait.reason for wait in kept):
        own = [wait for wait in kept if wait.reason == reason]
        texts = [
            _text(f"{', '.join(w.triggers)} kept: {reason}\n{day(w.since)} to {day(w.until)}\n{w.why}") for w in own
        ]
        yield _bars(reason, [(w.since, w.until) for w in own], texts, "var(--wait)")
    last = result.scores[-1].at if result.scores else None
    ran = [(r, r.ended_at or last) for r in result.retrainings]
    spans = [(r.planned_at, until) for r, until in ran if until is not None]
    yield _bars("training", spans, [_told(r) for r, until in ran if until is not None], "var(--own)")


def _bars(row: str, spans: Sequence[tuple[datetime, datetime]], texts: Sequence[str], colour: str) -> Trace:
    return {
        "type": "bar",
        "orientation": "h",
        "name": _text(row),
        "y": [_text(row).replace("_", " ")] * len(spans),
        "base": [_stamp(since) for since, _ in spans],
        "x": [(until - since).total_seconds() * 1000 for since, until in spans],
        "yaxis": "y3",
        # A training of an hour in a history of years is still to be seen: the line has a width of its own.
        "marker": {"color": colour, "line": {"color": colour, "width": 1.5}},
        "hovertext": list(texts),
        "hoverinfo": "text",
        "showlegend": False,
    }


def _drift(result: Result) -> Trace:
    known = [s for s in result.scores if s.drift_share is not None]
    line = {"color": "var(--wait)", "width": 1.2, "shape": "hv"}
    shares = [s.drift_share or 0.0 for s in known]
    trace = _line("drift share", [_stamp(s.at) for s in known], shares, line)
    return {**trace, "yaxis": "y2", "fill": "tozeroy", "fillcolor": "var(--wash)", "showlegend": False}


# --- how it is drawn ---

_BEST = {"color": "var(--best)", "width": 1.8, "dash": "dash"}
_NEVER = {"color": "var(--never)", "width": 1.4, "dash": "dot"}


def _line(name: str, moments: Sequence[str], values: Sequence[float], line: Trace, group: str | None = None) -> Trace:
    trace: Trace = {"type": "scatter", "mode": "lines", "name": name, "x": list(moments), "line": line}
    trace["y"] = [float(f"{value:.6g}") for value in values]
    return {**trace, "legendgroup": group} if group else trace


def _smooth(values: Sequence[float]) -> Sequence[float]:
    """The running mean over a hundredth of them, up to each; few are left as they are."""
    if len(values) <= SMOOTHED_FROM:
        return values
    width = max(2, len(values) // 100)
    sums = [0.0, *accumulate(values)]
    return [(sums[n + 1] - sums[max(0, n + 1 - width)]) / min(n + 1, width) for n in range(len(values))]


def _layout(height: int) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 44, "b": 36},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--ink)"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"align": "left", "bgcolor": "var(--panel)", "bordercolor": "var(--line)"},
        "hovermode": "closest",
    }


def _axis(**given: Any) -> dict[str, Any]:
    title = given.pop("title", None)
    named = {"title": {"text": title, "standoff": 8}} if title else {}
    return {"gridcolor": "var(--line)", "linecolor": "var(--line)", "zeroline": False, **named, **given}


def _range(result: Result) -> list[str] | None:
    """The whole history and a little, so that the plots stand one under the other."""
    if not result.scores:
        return None
    begin, end = result.scores[0].at, result.scores[-1].at
    return [_stamp(begin - (end - begin) / 100), _stamp(end + (end - begin) / 100)]


def _colour(n: int) -> str:
    return "var(--own)" if n == 0 else OTHERS[(n - 1) % len(OTHERS)]


def _stamp(moment: datetime) -> str:
    """As plotly reads a date: it knows no time zones, so UTC without saying so."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _text(given: str) -> str:
    """Lines for plotly, none too long and none of them HTML; of the entities it reads those of &, < and > only."""
    lines = (part for line in given.split("\n") for part in wrap(printable(line), 90) or [""])
    return "<br>".join(escape(line, quote=False) for line in lines)
