"""Every transcript in cases/ decides as it says; REWRITE=1 writes what is decided now, to be reviewed as a diff."""

import os
from pathlib import Path

import pytest

from tests.core.transcript import run

CASES = sorted((Path(__file__).parent / "cases").glob("*.txt"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_decides_as_the_transcript_says(case: Path) -> None:
    expected = case.read_text()
    actual = run(expected)
    if os.environ.get("REWRITE"):
        case.write_text(actual)
    assert actual == expected
