"""Every benchmark tells its figures in a section of its own and leaves the rest of the README alone."""

from pathlib import Path

import pytest

from bench import telling

BEFORE = "# Title\n\n<!-- drift, usual: written by `a` -->\n\nold\n\n<!-- end of drift, usual -->\n\nafter\n"


def test_a_section_is_written_between_its_own_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    other = "<!-- drift: written by `b` -->\n\nold\n\n<!-- end of drift -->\n"
    readme.write_text(BEFORE + other)
    telling.write("drift, usual", r"new \1", readme)
    assert readme.read_text() == BEFORE.replace("old", r"new \1") + other


def test_a_section_without_its_marks_is_an_error_not_a_lost_benchmark(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(BEFORE)
    with pytest.raises(AssertionError, match="0 sections named errors"):
        telling.write("errors", "text", readme)
    assert readme.read_text() == BEFORE


def test_a_table_has_a_line_for_every_row() -> None:
    assert telling.table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert telling.wilson(0, 20) == pytest.approx((0.0, 0.161), abs=1e-3)
    assert telling.wilson(5, 10) == pytest.approx((0.237, 0.763), abs=1e-3)
