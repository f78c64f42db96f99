"""Policies with mistakes in them, as a new user would write them: each is told with its place and what to write.

A file of mistakes/ ends with what is to be said of it, each mistake after `# -> `. REWRITE=1 writes what is said now,
to be reviewed as a diff: a message that does not help is a bug.
"""

import os
import re
from pathlib import Path

import pytest

from retrainer import wiring
from retrainer.ports import ConfigError

MISTAKES = sorted((Path(__file__).parent / "mistakes").glob("*.yaml"))
SIGN = "# -> "
NOISE = re.compile(r"Input should|union|tagged|discriminator|literal|[Ee]xtra inputs|pydantic|function-|\bdict\b|tuple")
"""Words of pydantic's that say nothing to who writes a policy."""
INSTEAD = re.compile(r"\b(write|remove|put|leave|name|begin|needs|goes|add|say|must|check|is not closed)\b")


def said(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        wiring.load_policy(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_a_mistake_is_told_as_the_file_expects(path: Path) -> None:
    text = path.read_text()
    if os.environ.get("REWRITE"):
        bare = "".join(f"{line}\n" for line in text.splitlines() if not line.startswith(SIGN))
        path.write_text(bare)
        path.write_text(text := bare + "".join(f"{SIGN}{line}\n" for line in said(path)))
    expected = [line.removeprefix(SIGN) for line in text.splitlines() if line.startswith(SIGN)]
    assert expected
    assert said(path) == expected


@pytest.mark.parametrize("path", MISTAKES, ids=lambda path: path.stem)
def test_every_mistake_has_a_place_and_says_what_to_do(path: Path) -> None:
    for line in said(path):
        assert re.match(r"\d+:\d+: ", line)
        assert not NOISE.search(line)
        assert INSTEAD.search(line)


def test_there_are_more_than_fifty_of_them() -> None:
    assert len(MISTAKES) > 150
