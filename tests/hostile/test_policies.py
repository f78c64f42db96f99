"""A policy file is a policy or a mistake told in few words, whatever was put there, in little time and memory."""

import os
import resource
import time
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrainer.adapters.policy_files import SIZE_MAX_BYTES, Defaults, PolicyFiles, load
from retrainer.adapters.policy_files.strict_yaml import NODES_MAX
from retrainer.core.decide import decide
from retrainer.core.events import RetrainingRequested
from retrainer.core.policy import Policy
from retrainer.core.record import digest, dump
from retrainer.core.state import ModelState
from retrainer.ports import ConfigError
from tests.core.transcript import check
from tests.hostile.budget import examples

GOOD = (Path(__file__).parents[1] / "adapters" / "policy.yaml").read_text()
DEFAULTS = Defaults(
    bucket="artifacts", state_machine="arn:aws:states:eu-central-1:111122223333:stateMachine:retraining"
)
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
CPU_SECONDS_MAX = 3.0
"""Of the worst file; the loop does not stand still meanwhile, since files are read in a thread."""


def read(path: Path, text: str | bytes) -> Policy | str:
    """The policy, of which all holds that is relied on, or the mistakes as they are told."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    begun = time.process_time()
    try:
        policy = load(path, DEFAULTS)
    except ConfigError as error:
        said = str(error)
        for line in said.splitlines():
            assert line.startswith(f"{path}:")
            assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in line)
            assert len(line) < 600
        assert len(said) < 40_000
        return said.replace(f"{path}:", "")
    finally:
        assert time.process_time() - begun < CPU_SECONDS_MAX
    assert len(digest(dump(policy))) == 64
    event = RetrainingRequested(request="r", by="kim", why="now")
    check(
        policy, ModelState(model=policy.model), event, NOW, decide(policy, ModelState(model=policy.model), event, NOW)
    )
    return policy


def with_(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def scheduled(**fields: str) -> str:
    """The policy with a schedule; its fields are YAML."""
    told = {"name": "n", "cron": "0 2 * * *", **fields}
    return with_(
        "triggers:\n", "triggers:\n  schedules: [{ " + ", ".join(f"{k}: {v}" for k, v in told.items()) + " }]\n"
    )


# --- any text, any value anywhere ---

_PIECES = st.sampled_from(
    [
        *(
            "&a ",
            "*a",
            "!!python/object:os.system ",
            "!x ",
            "<<: ",
            "? ",
            "- ",
            ": ",
            "|\n",
            ">-\n",
            "%YAML 1.1\n---\n",
            "---\n",
            "...\n",
        ),
        *(
            "{",
            "}",
            "[",
            "]",
            "'",
            '"',
            "\\",
            "#",
            "\t",
            "\r\n",
            "\ufeff",
            "\u2028",
            "\x85",
            "\0",
            "\ud800",
            '"\\ud800"',
            '"\\0"',
        ),
        *(
            ".nan",
            ".inf",
            "1e999",
            "0x" + "f" * 3000,
            "9" * 4000,
            "-0",
            "0o17",
            "1_000",
            "null",
            "~",
            "true",
            "NO",
            "on",
        ),
        *("999999w", "3651d", "0s", "../../etc/passwd", "a: " * 50, "[" * 40, "{a: " * 40, "x" * 5000),
    ]
)


@examples(100)
@given(text=st.text(max_size=60) | _PIECES, start=st.integers(0, len(GOOD)), length=st.integers(0, 40))
def test_whatever_is_written_into_a_policy_it_is_a_policy_or_a_mistake(
    tmp_path: Path, text: str, start: int, length: int
) -> None:
    read(tmp_path / "p.yaml", GOOD[:start] + text + GOOD[start + length :])


_SCALARS = [line for line in GOOD.splitlines() if ": " in line and not line.lstrip().startswith("#")]


@examples(120)
@given(line=st.sampled_from(_SCALARS), value=_PIECES | st.integers().map(str) | st.floats().map(str))
def test_whatever_value_a_field_is_given_it_is_taken_or_refused_with_its_place(
    tmp_path: Path, line: str, value: str
) -> None:
    read(tmp_path / "p.yaml", GOOD.replace(line, f"{line.split(': ')[0]}: {value}"))


@examples(60)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_mistake(tmp_path: Path, raw: bytes) -> None:
    assert isinstance(read(tmp_path / "p.yaml", raw), str)


# --- traps that are known ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (with_("labels_min: 200", "labels_min: 0x" + "f" * 20_000), "31:41: a text of 20002 characters; at most 4096"),
        (with_("labels_min: 200", "labels_min: 0x" + "f" * 3000), "31:41: 0xffff"),
        (with_("labels_min: 200", "labels_min: " + "9" * 4000), "31:41: 9999"),
        (
            with_("labels_min: 200", "labels_min: 9223372036854775808"),
            "31:41: 9223372036854775808 is too large a number",
        ),
        (with_("cooldown: 5s", "cooldown: 999999w"), "34:13: guards.cooldown: '999999w' is longer than ten years"),
        (with_("{ model: sasrec }", '{ model: "\\ud800" }'), "46:33: the character '\\ud800', which cannot be seen"),
        (with_("{ model: sasrec }", '{ model: "a\\0b" }'), "46:33: the character '\\x00', which cannot be seen"),
        (with_("{ model: sasrec }", '{ "a\\e[2J": 1 }'), "46:26: the character '\\x1b', which cannot be seen"),
        (with_("{ model: sasrec }", "{ model: a\u202eb }"), "46:33: the character '\\u202e', which cannot be seen"),
        ("%YAML 1.1\n---\n" + GOOD, "2:1: a directive (%); a policy is YAML 1.2"),
        ("%TAG ! tag:yaml.org,2002:python/\n---\n" + GOOD, "2:1: a directive (%)"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "1:4: the anchor 'a'; write the value out instead"),
        (f"a: &{'x' * 100_000} 1\n", "1:4: the anchor 'xxxxx"),
        (GOOD + "<<: { model: x }\n", "54:1: <<: there is no such field"),
        (GOOD + "x: !!binary aGk=\n", "54:4: the tag tag:yaml.org,2002:binary; write the plain value"),
        (GOOD.encode("utf-16"), " it is not UTF-8 text (byte 0); save it as UTF-8"),
        ("- " * 100_000, "1:33: more than 16 levels deep"),
        ("? " * 100_000, "1:33: more than 16 levels deep"),
        (scheduled(time_zone="../../etc/passwd"), "30:54: triggers.schedules.0.time_zone: '../../etc/passwd' is not a"),
        (scheduled(time_zone="/etc/localtime"), "30:54: triggers.schedules.0.time_zone: '/etc/localtime' is not a"),
        (scheduled(time_zone="Europe"), "30:54: triggers.schedules.0.time_zone: 'Europe' is not a time zone"),
        (scheduled(time_zone="x" * 4000), "30:54: triggers.schedules.0.time_zone: 'xxxx"),
        (
            scheduled(cron="'../../etc/passwd * * * *'"),
            "30:32: triggers.schedules.0.cron: '../../etc/passwd * * * *' is",
        ),
        (scheduled(cron=f"'{'9' * 4000} * * * *'"), "30:32: triggers.schedules.0.cron: '9999"),
        (scheduled(cron="'0 0 30 2 *'"), "30:32: triggers.schedules.0.cron: '0 0 30 2 *' is not a cron expression"),
    ],
)
def test_a_trap_is_refused_with_its_place(tmp_path: Path, text: str | bytes, said: str) -> None:
    told = read(tmp_path / "p.yaml", text)
    assert isinstance(told, str)
    assert told.startswith(said)


@pytest.mark.parametrize("text", ["\ufeff" + GOOD, GOOD.replace("\n", "\r\n"), GOOD.rstrip(), "---\n" + GOOD + "...\n"])
def test_what_an_editor_may_have_done_to_a_file_changes_nothing(tmp_path: Path, text: str) -> None:
    assert read(tmp_path / "p.yaml", text) == read(tmp_path / "q.yaml", GOOD)


def _fill(piece: Callable[[int], str], before: str = "", after: str = "") -> str:
    """As many pieces as a policy may have at the most: values, or bytes."""
    pieces = [before]
    size = len(before) + len(after)
    for i in range(NODES_MAX - 200):
        size += len(piece(i))
        if size > SIZE_MAX_BYTES:
            break
        pieces.append(piece(i))
    return "".join(pieces) + after


@pytest.mark.parametrize(
    "text",
    [
        _fill(lambda i: f"k{i}: 1\n"[: None if i < NODES_MAX // 2 - 200 else 0], GOOD),
        _fill(lambda i: f"k{i}: 1, "[: None if i < NODES_MAX // 2 - 200 else 0], "a: {", "}"),
        _fill(lambda _: "1,", "model: [", "1]"),
        GOOD.replace("[user_id, item_id, timestamp]", _fill(lambda _: "1,", "[", "1]")),
        GOOD.replace("{ model: sasrec }", _fill(lambda i: f"k{i}: [], "[: None if i < 4500 else 0], "{ ", "}")),
        GOOD.replace("genre: {", _fill(lambda i: f"k{i}: 1\n    "[: None if i < 4500 else 0]) + "genre: {"),
        "a: " + "1" * (SIZE_MAX_BYTES - 3),
        "a: " + "x " * (SIZE_MAX_BYTES // 2 - 2),
        'a: "' + "\n" * (SIZE_MAX_BYTES - 5) + '"',
        "#\n" * (SIZE_MAX_BYTES // 2),
        "\n" * SIZE_MAX_BYTES,
        "---\n" * (SIZE_MAX_BYTES // 4),
        "a: !" + "%41" * 80_000,
    ],
    ids=lambda text: text[:8],
)
def test_the_largest_files_take_little_time_and_few_words(tmp_path: Path, text: str) -> None:
    assert isinstance(read(tmp_path / "p.yaml", text), str)


# --- what stands there in a file's place ---


def test_what_is_no_regular_file_is_told_and_nobody_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "directory.yaml").mkdir()
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "gone.yaml").symlink_to("nowhere")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "fifo.yaml")
    with (tmp_path / "huge.yaml").open("wb") as huge:
        huge.truncate(100 * 1024**3)
    (tmp_path / "good.yaml").write_text(GOOD)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    files = PolicyFiles(tmp_path, DEFAULTS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024
    assert list(files.current()) == ["recommender"]
    assert {p.name: e.removeprefix(f"{p}: ") for p, e in files.errors().items()} == {
        "directory.yaml": "it cannot be read: Is a directory",
        "loop.yaml": "it cannot be read: Too many levels of symbolic links",
        "gone.yaml": "it cannot be read: No such file or directory",
        "zero.yaml": "it is not a regular file; put a file there",
        "fifo.yaml": "it is not a regular file; put a file there",
        "huge.yaml": "it is larger than 256 KiB; a policy is a page, not data",
    }


def test_a_name_that_cannot_be_shown_is_told_in_one_that_can(tmp_path: Path) -> None:
    for name in (b"\xff.yaml", b"a\nb.yaml", b"a\x1b[2J.yaml", "a\u202eb.yaml".encode()):
        (tmp_path / os.fsdecode(name)).write_text(GOOD)
    files = PolicyFiles(tmp_path, DEFAULTS)
    assert files.current() == {}
    assert files.valid() == {
        "'\\udcff.yaml'": False,
        "'a\\nb.yaml'": False,
        "'a\\x1b[2J.yaml'": False,
        "'a\\u202eb.yaml'": False,
    }
    for error in files.errors().values():
        assert error.isprintable()
        assert "cannot be shown; rename it" in error
        error.encode()


def test_a_directory_that_cannot_be_listed_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    files = PolicyFiles(tmp_path, DEFAULTS)

    def denied(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(ConfigError, match="cannot be listed: Permission denied; let the daemon read it"):
        files.reload()
    assert list(files.current()) == ["recommender"]
