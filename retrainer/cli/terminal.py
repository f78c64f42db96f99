"""What a command shows to the person before it, and asks of them. Rich is imported only where somebody looks."""

import sys
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

WIDE: Final = 10_000
"""Characters of a line that no terminal has: what a table would take if it could."""


def say(text: str) -> None:
    """Print it; what the terminal's encoding does not have is spelt out."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)  # noqa: T201


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, whole: int = 1, right: Container[int] = ()
) -> None:
    """Print a table of cells, which may hold what a stranger wrote.

    The first `whole` columns are not wrapped (up to 40 characters); those numbered in `right` hold figures, of which
    none is cut.
    """
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from retrainer.explain import printable

    cells = [[printable(cell) for cell in row] for row in rows]

    def column(n: int, name: str) -> Column:
        texts = [row[n] for row in cells]
        if n < whole:
            return Column(name, no_wrap=True, min_width=min(40, max(map(len, texts), default=0)))
        if n in right:
            words = [word for text in texts for word in text.split()]
            return Column(name, justify="right", min_width=max(map(len, words), default=0))
        return Column(name)

    shown = Table(*(column(n, name) for n, name in enumerate(columns)))
    for row in cells:
        shown.add_row(*map(Text, row))
    console = Console(highlight=False, markup=False, soft_wrap=False)
    needed = console.measure(shown, options=console.options.update(width=WIDE))
    # A terminal that is too narrow breaks the lines itself: rich would leave out the last columns.
    console.width = max(console.width, needed.minimum) if console.is_terminal else needed.maximum
    console.print(shown)


@contextmanager
def working(what: str) -> Iterator[Callable[[str], Any]]:
    """Shows a person that something goes on, and how far it is; a script is shown nothing."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True, markup=False).status(what) as status:
        yield status.update


def is_attended() -> bool:
    """Whether there is somebody who could be asked."""
    return sys.stdin.isatty()


def agreed(question: str) -> bool:
    """Whether the person says yes; no answer is a no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    return sys.stdin.readline().strip().lower() in ("y", "yes")
