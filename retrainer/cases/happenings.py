"""What can happen at a step, in the words of an operator; each reader takes its words off the line."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Final

from retrainer.cases.language import (
    Alarm,
    ApprovalAsked,
    ColumnTold,
    Ended,
    Fire,
    FleetTold,
    FleetWord,
    Happening,
    Measured,
    MeasuringFails,
    MistakeError,
    Order,
    Ordered,
    UnusableTold,
)
from retrainer.cases.words import Words, one_of
from retrainer.core.execution import Status, Verdict


def happening(words: Words) -> Happening | None:
    """The next thing that happens; None where only time passes. Raises MistakeError."""
    column = words.column
    first = words.take("what happens").text
    if first in ("(time", "time"):
        if not words.takes("passes)", "passes"):
            raise words.wrong("write (time passes)")
        return None
    if first in _HOW:
        raise MistakeError(words.line, column, f"{first!r} needs its subject; write execution ended {first}")
    if first not in _READERS:
        write = one_of(_READERS, first) if "one of" not in one_of(_READERS, first) else _EVERYTHING
        raise MistakeError(words.line, column, f"{first!r} is nothing that can happen; {write}")
    return _READERS[first](words, column)


def joined(line: int, column: int, before: list[Happening], new: Happening) -> list[Happening]:
    """What is measured at one step is one measurement. Raises MistakeError where a figure is told twice."""
    if not isinstance(new, Measured) or not before or not isinstance(before[-1], Measured):
        return [*before, new]
    known = before[-1]
    told = {
        f.name: getattr(new, f.name)
        for f in fields(Measured)
        if f.name != "column" and getattr(new, f.name) not in (None, ())
    }
    for name in told:
        if getattr(known, name) not in (None, ()):
            raise MistakeError(line, column, f"{name} is told twice in one step; write two steps")
    return [*before[:-1], replace(known, **told)]


def _rows(words: Words, column: int) -> Happening:
    words.takes("arrive")
    return Measured(column=column, rows=words.count("the number of rows"))


def _drift(words: Words, column: int) -> Happening:
    columns: list[ColumnTold] = []
    share: float | None = None
    if words.sees_assignment():
        while words.sees_assignment():
            columns.append(_column(words))
    else:
        at = words.column
        share = words.number("the share of drifted columns, or column=score")
        if not 0 <= share <= 1:
            raise MistakeError(words.line, at, f"{share:g} is no share; write 0 to 1, as in drift 0.31")
    rows = _on(words, "rows")
    return Measured(column=column, share=share, columns=tuple(columns), rows=rows)


def _column(words: Words) -> ColumnTold:
    word = words.take("column=score")
    name, _, score = word.text.partition("=")
    p: float | None = None
    if words.peek().startswith("p="):
        p = _value(words.line, words.column, words.take("p=").text.removeprefix("p="))
    value = _value(words.line, word.column + len(name) + 1, score)
    return ColumnTold(column=name, score=value, p=p, at=word.column)


def _value(line: int, column: int, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise MistakeError(line, column, f"{text!r} is no number; write rating=0.3 p=0.0001") from None


def _no(words: Words, column: int) -> Happening:
    words.need("drift", "no drift")
    return Measured(column=column, share=0.0)


def _performance(words: Words, column: int) -> Happening:
    value = words.number("the metric's value")
    return Measured(column=column, performance=(value, _on(words, "labels")))


def _estimated(words: Words, column: int) -> Happening:
    words.need("performance", "estimated performance 0.71")
    value = words.number("the metric's value")
    return Measured(column=column, estimated=(value, _on(words, "rows")))


def _loss(words: Words, column: int) -> Happening:
    mean = words.number("the mean loss")
    labels = _on(words, "labels")
    if labels is None:
        raise words.wrong("the number of labels is missing; write loss 0.12 on 500 labels")
    variance = words.number("the variance") if words.takes("variance") else None
    return Measured(column=column, loss=(mean, labels, variance))


def _on(words: Words, what: str) -> int | None:
    """`on N what`, where it is told."""
    if not words.takes("on"):
        return None
    count = words.count(f"the number of {what}")
    words.need(what, f"on {count} {what}")
    return count


def _batch(words: Words, column: int) -> Happening:
    words.need("refused", 'batch refused "it is truncated"')
    return Measured(column=column, refused=_why(words, "it cannot be read"))


def _unusable(words: Words, column: int) -> Happening:
    word = words.take("the name of a column")
    told = UnusableTold(column=word.text, why=_why(words, "it cannot be read"), at=word.column)
    return Measured(column=column, unusable=(told,))


def _measuring(words: Words, column: int) -> Happening:
    words.need("fails", 'measuring fails "the worker was killed"')
    return MeasuringFails(column=column, why=_why(words, "it cannot be done"))


def _alarm(words: Words, column: int) -> Happening:
    return Alarm(column=column, name=words.take("the alarm's name").text, ok=words.takes("ok", "OK"))


def _schedule(words: Words, column: int) -> Happening:
    return Fire(column=column, name=words.take("the schedule's name").text)


def _ordered(order: Order) -> "Reader":
    def read(words: Words, column: int) -> Happening:
        by = words.take("who").text if words.takes("by") else "ann"
        return Ordered(column=column, order=order, by=by, why=_why(words, "asked for"))

    return read


def _approval(words: Words, column: int) -> Happening:
    words.need("asked", "approval asked")
    return ApprovalAsked(column=column)


_HOW: Final = {
    **{v.value: v.value for v in Verdict},
    **{s.value.lower(): s.value for s in (Status.FAILED, Status.TIMED_OUT, Status.ABORTED)},
}
"""How an execution can end: the gate's verdict, or Step Functions' status."""
FIGURES: Final = ("challenger", "champion", "rows", "cost")


def _execution(words: Words, column: int) -> Happening:
    words.need("ended", "execution ended promoted")
    at = words.column
    how = words.take("how it ended").text
    if how not in _HOW:
        raise MistakeError(words.line, at, f"{how!r} is no end of an execution; {one_of(_HOW, how)}")
    return _ended(words, column, how, is_given=False)


def _champion(words: Words, column: int) -> Happening:
    words.need("promoted", "champion promoted")
    return _ended(words, column, Verdict.PROMOTED.value, is_given=True)


def _ended(words: Words, column: int, how: str, *, is_given: bool) -> Ended:
    figures: dict[str, float] = {}
    while words.sees(*FIGURES):
        name = words.take("a figure").text
        figures[name] = words.number(f"the figure {name}")
    return Ended(column=column, how=_HOW[how], figures=figures, why=_why(words, ""), is_given=is_given)


def _fleet(words: Words, column: int) -> Happening:
    at = words.column
    word = words.take("what the fleet does").text
    if word not in set(FleetWord):
        write = "write fleet busy with a, b; fleet waiting a; fleet started a cost 12; or fleet idle"
        raise MistakeError(words.line, at, f"{word!r} is nothing a fleet does; {write}")
    words.takes("with", "for")
    models = () if word == FleetWord.IDLE else _models(words)
    cost = words.number("what it cost") if words.takes("cost") else None
    return FleetTold(column=column, word=FleetWord(word), models=models, cost=cost)


def _models(words: Words) -> tuple[str, ...]:
    found = [words.take("a model's name").text]
    while words.takes(",", "and"):
        found.append(words.take("a model's name").text)
    return tuple(found)


def _why(words: Words, otherwise: str) -> str:
    return words.take("why").text if words.sees_quoted() else otherwise


Reader = Callable[[Words, int], Happening]
_READERS: Final[dict[str, Reader]] = {
    "rows": _rows,
    "drift": _drift,
    "no": _no,
    "performance": _performance,
    "estimated": _estimated,
    "loss": _loss,
    "losses": _loss,
    "batch": _batch,
    "unusable": _unusable,
    "measuring": _measuring,
    "alarm": _alarm,
    "schedule": _schedule,
    "manual": _ordered(Order.MANUAL),
    "pause": _ordered(Order.PAUSE),
    "resume": _ordered(Order.RESUME),
    "approval": _approval,
    "approve": _ordered(Order.APPROVE),
    "reject": _ordered(Order.REJECT),
    "execution": _execution,
    "champion": _champion,
    "fleet": _fleet,
}
_EVERYTHING: Final = (
    "write rows arrive N, drift SHARE, performance VALUE, loss MEAN on N labels, alarm NAME, schedule NAME, manual, "
    "pause, resume, execution ended HOW, champion promoted, approval asked, approve, reject, fleet busy with MODEL, "
    "measuring fails, batch refused, unusable COLUMN, or (time passes)"
)
