"""The text of a file of cases, read strictly: every mistake in it is told at once, each with its place."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from retrainer.cases import moments
from retrainer.cases.happenings import happening, joined
from retrainer.cases.language import Case, Cases, Expected, Happening, Kind, MistakeError, Step
from retrainer.cases.words import Words, one_of, without_comment
from retrainer.core.reason import HOLDS, Reason
from retrainer.ports import ConfigError

_HEADS = ("case:", "time zone:")
LINES_MAX = 20_000


def read(path: Path, text: str) -> Cases:
    """The cases of a file. Raises ConfigError with one line a mistake."""
    mistakes: list[MistakeError] = []
    zone = ZoneInfo("UTC")
    titles: list[tuple[int, str]] = []
    steps: list[list[Step]] = []
    for number, line in enumerate(text.splitlines()[:LINES_MAX], 1):
        bare = without_comment(line)
        if not bare.strip():
            continue
        try:
            match _head(number, bare):
                case ("case:", title):
                    titles.append((number, _title(number, bare, title, titles)))
                    steps.append([])
                case ("time zone:", name):
                    zone = _zone(number, bare, name, is_first=not titles)
                case _:
                    _step(number, bare, steps)
        except MistakeError as mistake:
            mistakes.append(mistake)
    if not mistakes:
        empty = [(n, t) for (n, t), given in zip(titles, steps, strict=True) if not given]
        mistakes += [MistakeError(n, 1, f"case {t!r} has no steps; write a time and what happens") for n, t in empty]
    if not titles and not mistakes:
        mistakes.append(MistakeError(1, 1, "there is no case here; write case: and a title, and steps below it"))
    if mistakes:
        raise ConfigError("\n".join(f"{path}:{m.line}:{m.column}: {m.said}" for m in mistakes))
    return Cases(
        zone=zone,
        cases=tuple(Case(line=n, title=t, steps=tuple(given)) for (n, t), given in zip(titles, steps, strict=True)),
    )


def _head(number: int, bare: str) -> tuple[str, str] | None:
    found = re.match(r"\s*([a-z][a-z ]*:)\s*(.*)", bare)
    if found is None or bare.lstrip().startswith("->"):
        return None
    if found[1] not in _HEADS:
        said = f"{found[1]!r} begins nothing; {one_of(_HEADS, found[1])}, or a step with its time"
        raise MistakeError(number, bare.index(found[1]) + 1, said)
    return found[1], found[2]


def _title(number: int, bare: str, title: str, titles: Sequence[tuple[int, str]]) -> str:
    if not title:
        raise MistakeError(number, len(bare) + 1, "the case has no title; write what it claims")
    for line, known in titles:
        if known == title:
            raise MistakeError(
                number, len(bare) - len(title) + 1, f"the case of line {line} has this title; write another"
            )
    return title


def _zone(number: int, bare: str, name: str, *, is_first: bool) -> ZoneInfo:
    if not is_first:
        raise MistakeError(number, 1, "the time zone is one for the whole file; write it above the first case")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        column = len(bare) - len(name) + 1
        said = f"{name!r} is not a time zone; write an IANA name, as in Europe/Berlin"
        raise MistakeError(number, column, said) from None


def _step(number: int, bare: str, steps: list[list[Step]]) -> None:
    if not steps:
        raise MistakeError(number, 1, "a step belongs to a case; write case: and a title above it")
    column = len(bare) - len(bare.lstrip()) + 1
    text = bare.lstrip()
    if text.startswith("->"):
        _add_expectation(Words(number, text, column), steps[-1])
        return
    moment = moments.find(text, number, column)
    words = Words(number, text[len(moment.text) :], column + len(moment.text))
    what = _happenings(words)
    steps[-1].append(Step(line=number, moment=moment, happenings=what, expected=_expected(words) if words else None))


def _add_expectation(words: Words, steps: list[Step]) -> None:
    """An arrow on a line of its own belongs to the step above."""
    if not steps or steps[-1].expected:
        raise words.wrong("an arrow belongs to a step; write a time and what happens before it")
    steps[-1] = replace(steps[-1], expected=_expected(words))


def _happenings(words: Words) -> tuple[Happening, ...]:
    found: list[Happening] = []
    while words and not words.sees("->"):
        if found and not words.takes(","):
            said = "write a comma between two things that happen, or -> before what is expected"
            raise words.wrong(f"{words.peek()!r} cannot stand here; {said}")
        column = words.column
        if made := happening(words):
            found = joined(words.line, column, found, made)
        elif found or words.sees(","):
            raise MistakeError(words.line, column, "time passes by itself; leave the words out")
        else:
            break
    if words and not words.sees("->"):
        raise words.wrong(f"{words.peek()!r} cannot stand here; write -> and what is expected, or end the line")
    return tuple(found)


def _expected(words: Words) -> Expected:
    line, end = words.line, words.end
    column = words.column
    words.need("->", "-> retrain, -> hold: REASON or -> nothing")
    at = words.column
    word = words.take("what is expected: retrain, hold: REASON or nothing").text
    kind, has_more = word.removesuffix(":"), word.endswith(":")
    made: Expected
    match kind:
        case "retrain" | "retraining":
            made = Expected(
                line=line, column=column, kind=Kind.RETRAIN, words=_list(words) if has_more else (), end=end
            )
        case "hold":
            made = _hold(words, column, end, has_more=has_more)
        case "nothing":
            made = Expected(
                line=line, column=column, kind=Kind.NOTHING, words=(_rest(words, "why"),) if has_more else (), end=end
            )
        case _ if kind in {r.value for r in Reason}:
            made = Expected(line=line, column=column, kind=Kind.REASON, words=(kind,), end=end)
        case _:
            known = ("retrain", "hold:", "nothing", *(r.value for r in Reason))
            said = f"{word!r} cannot be expected; {one_of(known, word) if _near(word, known) else _WRITE}"
            raise MistakeError(line, at, said)
    if words:
        instead = f"write {kind}: {words.peek()}" if not has_more else "end the line, or write a comma"
        raise words.wrong(f"{words.peek()!r} cannot stand here; {instead}")
    return made


_WRITE = "write -> retrain: TRIGGER, -> hold: REASON until TIME, -> nothing, or the word of a reason"


def _near(word: str, known: Sequence[str]) -> bool:
    return "one of" not in one_of(known, word)


def _list(words: Words) -> tuple[str, ...]:
    found = [words.take("a name").text]
    while words.takes(",", "and"):
        found.append(words.take("a name").text)
    return tuple(found)


def _hold(words: Words, column: int, end: int, *, has_more: bool) -> Expected:
    found: tuple[str, ...] = ()
    until = None
    if has_more:
        at = words.column
        reason = words.take("the reason").text
        if reason not in HOLDS:
            said = f"{reason!r} holds nothing back; {one_of(HOLDS, reason)}"
            raise MistakeError(words.line, at, said)
        found = (reason,)
        if words.takes("until"):
            at = words.column
            text = _rest(words, "a time")
            until = moments.find(text, words.line, at)
            if until.text != text:
                raise MistakeError(words.line, at, f"{text!r} is no time; {moments.WRITE}")
    return Expected(line=words.line, column=column, kind=Kind.HOLD, words=found, until=until, end=end)


def _rest(words: Words, what: str) -> str:
    found = [words.take(what).text]
    while words:
        found.append(words.take(what).text)
    return " ".join(found)
