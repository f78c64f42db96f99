"""The page is one file that loads nothing and runs nothing, and whatever a stranger wrote stays text in it."""

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from retrainer.core.evidence import Evidence
from retrainer.report.document import document
from retrainer.report.page import page
from tests.report.example import Example, wide

STRANGE = "<script>document.title='taken'</script>\"'</td></table>&amp;<img src=x onerror=\"alert(1)\">{0}%{x}\u202e"
HOSTILE = Example(far="far" + STRANGE, near="near" + STRANGE, category="land" + STRANGE, why="why" + STRANGE)


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_is_loaded_and_nothing_runs() -> None:
    made = page(HOSTILE.document())
    for tag, attributes in Elements(made).found:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "form", "a", "base")
        assert not attributes.keys() & {"src", "href", "srcset", "data", "action", "xlink:href"}, tag
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(|@import", made)
    assert "default-src 'none'" in made


def test_what_a_stranger_wrote_is_text() -> None:
    plain, strange = Elements(page(Example().document())), Elements(page(HOSTILE.document()))
    assert [tag for tag, _ in strange.found] == [tag for tag, _ in plain.found]
    for name in ("far", "near", "land", "why"):
        assert f"{name}<script>document" in strange.text
    assert "\u202e" not in strange.text


def test_the_page_answers_what_how_far_since_when_and_on_what() -> None:
    made = page(Example().document())
    text = Elements(made).text
    for said in (
        "2 of 3 columns drifted, furthest amount: 9.8x its threshold; the first since 2026-03-02 07:30",
        "800 rows",
        "1 batch, 2026-03-01 00:00 to 2026-03-04 05:00",
        "0.97 to 0.99",
        "< 1e-99",
        "0.0% → 2.0%",
        "33.0%",
        "new countryland",
        "12 of 800 values are infinite",
        "s3://lake/data/m/bad.parquet",
        "accuracy, 640 labels",
    ):
        assert said in text
    assert made.count("<td class='n'>2026-03-02 07:30</td>") == 1


def test_a_thousand_columns_make_a_page_that_a_phone_can_open() -> None:
    made = page(wide(1_000))
    assert len(made.encode()) < 1_000_000
    assert made.count("<article>") == 50
    assert "the 50 furthest of 1000" in made


def test_a_measurement_of_nothing_still_makes_a_page() -> None:
    made = page(document(model="m", decision="m-1", evidence=Evidence(rows=0), reference=()))
    assert "no column was measured." in made


@pytest.mark.browser
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_browser_runs_nothing_of_a_stranger_and_a_phone_need_not_scroll_sideways(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    # The probe is the test's own, and so is the permission to run it.
    probe = "<script>addEventListener('load', () => document.body.dataset.wide = document.body.scrollWidth)</script>"
    made = page(HOSTILE.document()).replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'")
    file.write_text(made.replace("</main>", f"</main>{probe}"))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    offline = ["--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=500,900", "--dump-dom"]
    ran = subprocess.run([*command, *offline, file.as_uri()], capture_output=True, timeout=120, env=os.environ)
    drawn = ran.stdout.decode()
    assert "<title>taken</title>" not in drawn
    width = re.search(r'data-wide="(\d+)"', drawn)
    assert width is not None
    assert int(width[1]) <= 500
