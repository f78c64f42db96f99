"""The words of one line, taken one after the other; every complaint knows its column."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from retrainer.cases.language import MistakeError

_COMMENT = re.compile(r'(?:^|\s)\s*#(?=(?:[^"]*"[^"]*")*[^"]*$).*')
_WORD = re.compile(r'"(?P<quoted>[^"]*)"|(?P<sign>->|,)|(?P<word>[^\s,"]+)')


@dataclass(frozen=True, slots=True)
class Word:
    """A word, a comma, an arrow or a text in quotes, and its column from 1."""

    text: str
    column: int
    is_quoted: bool = False


class Words:
    """What is left of a line."""

    def __init__(self, line: int, text: str, column: int) -> None:
        """The words of `text`, which stands at `column` of the line, up to a comment."""
        self.line = line
        self.end = column + len(text.rstrip())
        self._words: list[Word] = []
        for match in _WORD.finditer(text):
            self._words.append(Word(match[0].strip('"'), column + match.start(), match["quoted"] is not None))
        if text.count('"') % 2:
            raise MistakeError(line, column + text.rindex('"'), 'a quote is not closed; write "text"')

    def __bool__(self) -> bool:
        return bool(self._words)

    @property
    def column(self) -> int:
        """Where the next word stands, or the end of the line."""
        return self._words[0].column if self._words else self.end

    def sees(self, *texts: str) -> bool:
        """Whether the next word is one of these."""
        return bool(self._words) and not self._words[0].is_quoted and self._words[0].text in texts

    def takes(self, *texts: str) -> bool:
        """Takes the next word if it is one of these."""
        if not self.sees(*texts):
            return False
        self._words.pop(0)
        return True

    def take(self, what: str) -> Word:
        """The next word, whatever it is. Raises MistakeError where there is none."""
        if not self._words or (self._words[0].text in (",", "->") and not self._words[0].is_quoted):
            raise MistakeError(self.line, self.column, f"{what} is missing here")
        return self._words.pop(0)

    def need(self, text: str, instead: str) -> None:
        """Takes this very word. Raises MistakeError with what to write."""
        if not self.takes(text):
            raise self.wrong(f"{text!r} is missing here; write {instead}")

    def number(self, what: str) -> float:
        """The next word as a number. Raises MistakeError."""
        word = self.take(what)
        try:
            return float(word.text) if re.fullmatch(r"[-+0-9.eE]+", word.text) else self._no_number(word, what)
        except ValueError:
            return self._no_number(word, what)

    def count(self, what: str) -> int:
        """The next word as a whole number that is not negative. Raises MistakeError."""
        column = self.column
        value = self.number(what)
        if len(self._words) > 1 and self.sees(",") and re.fullmatch(r"\d{3}", self._words[1].text):
            raise self.wrong(f"a number has no comma in it; write {value:g}{self._words[1].text}")
        if value < 0 or value != int(value):
            raise MistakeError(self.line, column, f"{value:g} is no count of {what.rpartition(' ')[2]}")
        return int(value)

    def sees_number(self) -> bool:
        """Whether the next word begins as a number does."""
        return bool(self._words) and bool(re.match(r"[-+]?\.?\d", self._words[0].text))

    def sees_quoted(self) -> bool:
        """Whether the next word is a text in quotes."""
        return bool(self._words) and self._words[0].is_quoted

    def sees_assignment(self) -> bool:
        """Whether the next word is of the form name=value."""
        return bool(self._words) and "=" in self._words[0].text and not self._words[0].is_quoted

    def peek(self) -> str:
        """The next word, or nothing."""
        return self._words[0].text if self._words else ""

    def wrong(self, said: str) -> MistakeError:
        """The mistake at the next word."""
        return MistakeError(self.line, self.column, said)

    def _no_number(self, word: Word, what: str) -> float:
        share = re.fullmatch(r"(\d+(?:\.\d+)?)%", word.text)
        write = f"write {float(share[1]) / 100:g}" if share else f"write {what} as a number, as in 0.31 or 500"
        raise MistakeError(self.line, word.column, f"{word.text!r} is no number; {write}")


def one_of(words: Iterable[str], given: str) -> str:
    """What to write instead of `given`: the nearest of the words, or all of them."""
    known = list(words)
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    return f"write {close[0]}" if close else f"write one of {', '.join(known)}"


def without_comment(line: str) -> str:
    """The line up to a comment, which begins with # after a space; columns stay what they are."""
    return _COMMENT.sub("", line.replace("\t", " ")).rstrip()
