"""How the facts of a document are said, on the page and on a terminal alike. None of it is escaped."""

from collections.abc import Sequence

from retrainer.report.document import Column, Document, Window

SHOWN_MAX = 160
"""Characters of a name or a reason that are shown."""


def headline(document: Document) -> str:
    """What there is to know in a sentence, without a point."""
    measured = document["measured"]
    if not measured:
        return "no column was measured"
    said = f"{document['drifted']} of {measured} column{'' if measured == 1 else 's'} drifted"
    furthest = document["columns"][0]
    if furthest["drifted"]:
        said += f", furthest {short(furthest['column'])}: {times(furthest['times_threshold'])} its threshold"
    earliest = min((column["since"] for column in document["columns"] if column["since"]), default=None)
    return f"{said}; the first since {moment(earliest)}" if earliest else said


def rows(window: Window) -> str:
    return f"{window['rows']:,} row{'' if window['rows'] == 1 else 's'}"


def batches(window: Window) -> str:
    """How many there are, and the time span of their rows."""
    count = f"{window['batches']:,} batch{'' if window['batches'] == 1 else 'es'}"
    span = (moment(window["began"]), moment(window["ended"]))
    return f"{count}, {span[0]} to {span[1]}" if all(span) else count


def times(value: float) -> str:
    return f"{value:.1f}x" if value < 1_000 else "over 1,000x"


def figure(value: float) -> str:
    return f"{value:.4g}"


def between(column: Column) -> str:
    """What the score is certain to lie between, where it is not known exactly."""
    if column["low"] is None or column["high"] is None:
        return ""
    low, high = figure(column["low"]), figure(column["high"])
    return low if low == high else f"{low} to {high}"


def chance(p_value: float | None) -> str:
    """A p-value; those below what anybody could check are all the same."""
    return "" if p_value is None else f"{p_value:.2g}" if p_value >= 1e-99 else "< 1e-99"


def nulls(column: Column) -> str:
    """The shares of nulls, empty where there are none."""
    both = (column["reference_nulls"], column["nulls"])
    return pair(both) if any(both) else ""


def pair(shares: Sequence[float]) -> str:
    return f"{shares[0]:.1%} → {shares[1]:.1%}"


def moment(stamp: str | None) -> str:
    """A moment of the document to the minute."""
    return stamp[:16].replace("T", " ") if stamp else ""


def short(text: str, most: int = SHOWN_MAX) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
