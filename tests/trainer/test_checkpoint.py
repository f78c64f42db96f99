"""Checkpoints on the disk: when, how many, and what is made of one that is not whole."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.learner import SmallHyperparameters, job_of, trained
from trainer import checkpoint, contract, loop, tensors
from trainer.contract import OutOfMemoryError, Paths

MINE, ANOTHERS = "a" * 64, "b" * 64


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def write(writer: checkpoint.Writer, step: int, size: int = 50) -> None:
    writer.write(step, {"weight": np.full(size, float(step), np.float32)}, {"step": step})
    writer.wait()


def newest_step(folder: Path, fingerprint: str = MINE) -> int | None:
    found = checkpoint.load_newest(folder, fingerprint)
    if found is None:
        return None
    step: int = found.state["step"]
    assert (found.tensors["weight"] == step).all()
    return step


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def steps(folder: Path) -> list[int]:
    """Of the checkpoints there."""
    return sorted(json.loads(tensors.read(file)[0]["state"].tobytes())["step"] for file in files(folder))


def resumed(folder: Path) -> checkpoint.Writer:
    writer, found = checkpoint.Writer(folder, MINE, 0), checkpoint.load_newest(folder, MINE)
    assert found is not None
    writer.slot = found.slot
    return writer


@pytest.mark.parametrize(
    ("write_seconds", "interruption_seconds", "expected"),
    [(0.5, 7200.0, math.sqrt(7200.0)), (2.0, 900.0, 60.0), (1.0, 0.0, 0.0), (0.0, 7200.0, 0.0)],
)
def test_the_interval_is_youngs(write_seconds: float, interruption_seconds: float, expected: float) -> None:
    assert checkpoint.interval_seconds(write_seconds, interruption_seconds) == pytest.approx(expected)


def test_no_other_interval_costs_less_in_a_simulated_year() -> None:
    """Against the cost itself: writing, and repeating what was lost at interruptions drawn at random."""
    write, between = 2.0, 3600.0
    gap_G = np.random.default_rng(0).exponential(between, 20_000)

    def cost(interval: float) -> float:
        whole_G = np.floor(gap_G / (interval + write))
        return float((gap_G - whole_G * interval).sum() / gap_G.sum())

    best = checkpoint.interval_seconds(write, between)
    assert cost(best) <= 1.01 * min(cost(best * factor) for factor in (0.25, 0.5, 0.7, 0.8, 1.25, 1.5, 2.0, 4.0))


def test_a_checkpoint_is_due_after_the_first_step_and_then_at_youngs_interval(tmp_path: Path) -> None:
    clock = Clock()
    writer = checkpoint.Writer(tmp_path, MINE, 200.0, clock=clock)
    assert not writer.due(0)
    assert writer.due(1)
    writer.write(1, {}, {})
    clock.now = 4.0  # it took four seconds
    writer.wait()
    for now, due in [(4.0, False), (39.9, False), (40.0, True), (99.0, True)]:
        clock.now = now
        assert writer.due(2) == due
    assert not writer.due(1), "this step is on the disk"


def test_so_many_are_kept_under_names_that_take_turns_and_no_temporary_file(tmp_path: Path) -> None:
    writer = checkpoint.Writer(tmp_path, MINE, 0, keep=3)
    (tmp_path / ".checkpoint-aaaaaaaa-1.safetensors.tmp").write_bytes(b"left by a kill")
    seen = set()
    for step in range(1, 9):
        write(writer, step)
        seen |= {file.name for file in files(tmp_path) if file.suffix == ".safetensors"}
        assert newest_step(tmp_path) == step
    assert steps(tmp_path) == [6, 7, 8]
    assert seen == {f"checkpoint-aaaaaaaa-{slot}.safetensors" for slot in range(3)}, "more would stay in S3"


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_a_resumed_job_replaces_the_older_one_and_never_the_one_it_resumed_from(tmp_path: Path, last: int) -> None:
    """On a machine that has them from S3, with the times of the download."""
    writer = checkpoint.Writer(tmp_path, MINE, 0)
    for step in range(1, last + 1):
        write(writer, step)
    (copied := tmp_path / "fresh").mkdir()
    for file in reversed(list(tmp_path.glob("*.safetensors"))):
        (copied / file.name).write_bytes(file.read_bytes())
    write(resumed(copied), 100)
    assert steps(copied) == [last, 100]


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def emptied(_content: bytes) -> bytes:
    return b""


def flipped(at: float) -> Callable[[bytes], bytes]:
    def flip(content: bytes) -> bytes:
        place = int(at * (len(content) - 1))
        return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]

    return flip


@pytest.mark.parametrize("spoil", [truncated, emptied, flipped(0.0), flipped(0.4), flipped(0.8), flipped(1.0)])
def test_a_spoilt_newest_falls_back_to_the_one_before(
    tmp_path: Path, spoil: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    writer = checkpoint.Writer(tmp_path, MINE, 0)
    write(writer, 1)
    write(writer, 2)
    newest = files(tmp_path)[1]
    newest.write_bytes(spoil(newest.read_bytes()))
    assert newest_step(tmp_path) == 1
    assert "checkpoint_skipped reason=unreadable" in capsys.readouterr().out


def test_no_flipped_byte_goes_unseen(tmp_path: Path) -> None:
    """The cursor too: it lies among the tensors, under the checksum. What remains are bytes that mean nothing."""
    writer = checkpoint.Writer(tmp_path, MINE, 0)
    write(writer, 7, size=3)
    file = files(tmp_path)[0]
    content = file.read_bytes()
    whole = checkpoint.load_newest(tmp_path, MINE)
    assert whole is not None
    seen = 0
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        found = checkpoint.load_newest(tmp_path, MINE)
        if found is not None:
            assert found.state == whole.state
            assert tensors.digest(found.tensors) == tensors.digest(whole.tensors)
        seen += found is None
    assert seen > 0.9 * len(content)


def test_a_spoilt_one_is_not_counted_among_those_kept(tmp_path: Path) -> None:
    writer = checkpoint.Writer(tmp_path, MINE, 0)
    for step in (1, 5):
        write(writer, step)
    files(tmp_path)[-1].write_bytes(b"")
    writer = resumed(tmp_path)
    for step in (2, 3):  # it resumed from 1
        write(writer, step)
    assert steps(tmp_path) == [2, 3]


def test_anothers_checkpoints_are_neither_used_nor_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(checkpoint.Writer(tmp_path, ANOTHERS, 0), 900)
    assert newest_step(tmp_path) is None
    assert "checkpoint_skipped reason=other_data_or_hyperparameters" in capsys.readouterr().out
    writer = checkpoint.Writer(tmp_path, MINE, 0)
    for step in (1, 2, 3):
        write(writer, step)
    assert newest_step(tmp_path) == 3
    assert newest_step(tmp_path, ANOTHERS) == 900


def test_a_full_disk_is_a_failure_of_class_memory_that_names_the_disk(tmp_path: Path) -> None:
    """/dev/full answers ENOSPC to whoever writes to it, here in the place of the temporary file."""
    (tmp_path / f".checkpoint-{MINE[:8]}-0.safetensors.tmp").symlink_to("/dev/full")
    writer = checkpoint.Writer(tmp_path, MINE, 0)
    with pytest.raises(OutOfMemoryError, match="is full") as raised:
        write(writer, 1)
    assert str(tmp_path) in str(raised.value)
    assert contract.classify(raised.value)[:2] == ("memory", 4)


def test_the_disk_that_fills_while_training_ends_the_job(tmp_path: Path) -> None:
    paths, p = Paths(tmp_path), SmallHyperparameters(interruption_seconds=0)
    paths.checkpoints.mkdir()
    name = f".checkpoint-{loop.fingerprint(p)[:8]}-0.safetensors.tmp"
    (paths.checkpoints / name).symlink_to("/dev/full")
    with pytest.raises(OutOfMemoryError, match="give a larger volume"):
        trained(job_of(paths, p))


def test_what_else_keeps_a_checkpoint_from_the_disk_is_raised_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the place of the folder")
    writer = checkpoint.Writer(tmp_path / "file", MINE, 0)
    with pytest.raises(FileExistsError):
        write(writer, 1)


def test_what_is_told_of_a_step_is_of_that_step_however_late_it_reaches_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, write_it = ["a step"], checkpoint._write

    def late(*what: Any) -> Path:
        heard.append("the step after it")
        return write_it(*what)

    monkeypatch.setattr(checkpoint, "_write", late)
    writer = checkpoint.Writer(tmp_path, MINE, 0)
    writer.write(1, {"weight": np.zeros(5, np.float32)}, {"heard": heard})
    writer.wait()
    found = checkpoint.load_newest(tmp_path, MINE)
    assert found is not None
    assert found.state["heard"] == ["a step"]
    assert len(heard) == 2


def test_numbers_without_a_dimension_come_back_without_one(tmp_path: Path) -> None:
    writer = checkpoint.Writer(tmp_path, MINE, 0)
    writer.write(1, {"count": np.array(3, np.int64)}, {})
    writer.wait()
    found = checkpoint.load_newest(tmp_path, MINE)
    assert found is not None
    assert found.tensors["count"].shape == ()
