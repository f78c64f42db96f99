"""Recorded decisions are made again and compared; whatever was tampered with is named, and no secret is shown."""

import asyncio
import json
import sqlite3
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from retrainer import replay
from retrainer.adapters.ledger_sql import SqlLedger
from retrainer.cli import main
from retrainer.core.events import ApprovalAnswered
from retrainer.core.record import canonical, digest, dump, dump_as_before, load_effect
from retrainer.core.state import ModelState
from retrainer.ports import Original
from tests.fakes.memory_ledger import MemoryLedger
from tests.fakes.story import Story, approval_requested, arrived, promoted

TOKEN = "a-task-token-that-nobody-may-see"
T = TypeVar("T")
Out = pytest.CaptureFixture[str]


async def told(story: Story) -> str:
    """Nine decisions: an execution asked for, approved and promoted, and what came after it."""
    name = await story.running()
    await story.tell(approval_requested(name, TOKEN))
    await story.tell(ApprovalAnswered(request="a1", execution=name, approved=True, by="ana"))
    await story.tell(promoted(name))
    await story.stocked()
    return name


async def originals() -> list[Original]:
    story = Story(MemoryLedger())
    await told(story)
    return [original async for original in story.ledger.history("recommender", 1)]


def known(state: ModelState) -> replay.Known:
    return replay.Known(state=state, hash=digest(dump(state)))


# --- the pure part ---


async def test_a_decision_made_again_leaves_the_state_that_the_next_one_met() -> None:
    before: replay.Known | None = known(ModelState(model="recommender"))
    for original in await originals():
        assert before
        assert before.hash == original.state_hash_before
        replayed = replay.replay(original, before)
        assert (replayed.cannot, replayed.differences) == ("", ())
        before = replayed.after


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"reason": "promoted"}, "reason"),
        ({"detail": "because"}, "detail"),
        ({"state_hash_after": "0" * 64}, "state after"),
        ({"state_hash_before": "0" * 64}, "state before"),
        ({"policy_hash": "0" * 64}, "policy's hash"),
        ({"effects": ()}, "effects"),
    ],
)
async def test_whatever_is_not_as_it_was_recorded_is_named(change: dict[str, Any], what: str) -> None:
    first = replace((await originals())[0], **change)
    replayed = replay.replay(first, known(ModelState(model="recommender")))
    assert [difference.what for difference in replayed.differences] == [what]
    assert replayed.after is None


async def test_what_was_recorded_before_windows_were_counted_as_profiles_is_made_again_all_the_same() -> None:
    now = before = known(ModelState(model="recommender"))
    for original in await originals():
        made = replay.replay(original, now)
        assert made.made
        assert made.after
        now = made.after
        after = dump_as_before(made.made.decision.state)
        old = replace(
            original,
            state_hash_before=digest(dump_as_before(made.made.before)),
            state_hash_after=digest(after),
            state_after=after if original.state_after else None,
            effects=tuple((key, kind, dump_as_before(load_effect(kind, body))) for key, kind, body in original.effects),
        )
        assert old != original
        replayed = replay.replay(old, before)
        assert (replayed.cannot, replayed.differences) == ("", ())
        assert replayed.after
        before = replayed.after
    assert before.state == now.state
    # The first decision of a version that knows the fields was made on a state that an older one had written.
    assert before.hash == digest(dump_as_before(now.state))
    assert not any(
        d.what == "state before" for d in replay.replay((await originals())[0], known_as_before()).differences
    )


def known_as_before() -> replay.Known:
    state = ModelState(model="recommender")
    return replay.Known(state=state, hash=digest(dump_as_before(state)))


async def test_an_effects_body_is_compared_field_by_field_unless_it_was_dropped() -> None:
    first = (await originals())[0]
    ((key, kind, body),) = first.effects
    forged = json.loads(body)
    forged["current"][0]["size_bytes"] = 7
    start = known(ModelState(model="recommender"))
    replayed = replay.replay(replace(first, effects=((key, kind, canonical(forged)),)), start)
    assert [(d.what, d.recorded, d.recomputed) for d in replayed.differences] == [
        ("recommender-1.measure: current[0].size_bytes", "7", "1000")
    ]
    assert not replay.replay(replace(first, effects=((key, kind, ""),)), start).differences


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"recorded_by": None}, replay.NO_POLICY),
        ({"policy": None}, "the ledger has no policy"),
        ({"event": ""}, replay.COMPACTED),
        ({"event": "{}"}, "this version cannot read what it was made of: ValidationError"),
        ({"event_kind": "MoonRisen"}, "this version cannot read what it was made of: KeyError"),
        ({"policy": "{}"}, "this version cannot read what it was made of: ValidationError"),
    ],
)
async def test_what_cannot_be_made_again_says_why(change: dict[str, Any], why: str) -> None:
    first = replace((await originals())[0], **change)
    replayed = replay.replay(first, known(ModelState(model="recommender")))
    assert replayed.cannot.startswith(why)
    assert not replayed.differences
    assert replay.replay(first, None).cannot


async def test_a_state_that_an_older_version_wrote_is_gone_on_from() -> None:
    """It lacks what that version did not know, so that its hash is that of its own text."""
    *_, last, newest = await originals()
    state = json.loads(newest.state_after or "")
    del state["fruitless"], state["levels"]
    old = canonical(state)
    before = replay.kept(replace(newest, state_after=old))
    assert before
    assert before.hash == digest(old) != newest.state_hash_after
    assert dump(before.state) == newest.state_after
    assert replay.kept(last) is None


# --- the command ---


def ran(coroutine: Coroutine[Any, Any, T]) -> T:
    """Its result, from a loop of its own in a thread of its own: pytest-asyncio keeps the main thread's."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def run(*args: str) -> int:
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(main, args).result()


async def _fill(url: str) -> str:
    ledger = await SqlLedger.open(url)
    name = await told(Story(ledger))
    await Story(ledger, "other").stocked()
    await ledger.close()
    return name


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger with two models, where the command looks for it."""
    path = tmp_path / "ledger.db"
    monkeypatch.setenv("RETRAINER_LEDGER", f"sqlite:///{path}")
    ran(_fill(f"sqlite:///{path}"))
    return path


def tampered(ledger: Path, statement: str) -> None:
    with closing(sqlite3.connect(ledger)) as raw:
        raw.execute(statement)
        raw.commit()


@pytest.mark.usefixtures("ledger")
def test_a_ledger_is_proved_whole(capsys: Out) -> None:
    assert run("replay", "--all") == 0
    assert capsys.readouterr().out.splitlines() == [
        "other: 2 decisions replayed, all identical",
        "recommender: 9 decisions replayed, all identical",
    ]
    assert run("replay", "--model", "other", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "identical": True,
        "models": {"other": {"identical": 2, "cannot": {}, "first_difference": None}},
    }
    assert run("replay", "recommender-3") == 0
    assert capsys.readouterr().out.startswith("recommender-3 replayed, identical: retraining, state ")


def test_a_state_hash_that_was_tampered_with_is_found(ledger: Path, capsys: Out) -> None:
    tampered(ledger, f"UPDATE decisions SET state_hash_after = '{'0' * 64}' WHERE id = 'recommender-5'")  # noqa: S608
    assert run("replay", "--all") == 1
    out = capsys.readouterr().out
    assert "other: 2 decisions replayed, all identical" in out
    assert "recommender: 4 decisions replayed identical, then recommender-5 differs:" in out
    assert f"  state after\n    recorded    {'0' * 64}\n    recomputed  " in out
    assert "    version: 4 -> 5" in out
    assert TOKEN not in out
    assert "execution.approval.task_token: (left out) -> (another one)" in out
    # A later one is built on it, and an earlier one is not.
    assert run("replay", "recommender-7") == 1
    assert "recommender-5, which recommender-7 is built on, differs:" in capsys.readouterr().out
    assert run("replay", "recommender-4") == 0
    assert run("replay", "recommender-7", "--json") == 1
    shown = capsys.readouterr().out
    assert json.loads(shown.splitlines()[-1])["decision"] == "recommender-5"
    assert TOKEN not in shown


@pytest.mark.parametrize(
    ("statement", "decision", "what"),
    [
        ("UPDATE events SET body = replace(body, 'ana', 'eve') WHERE identity = 'request:r1'", 3, '"eve"'),
        ("UPDATE events SET body = replace(body, '1000', '1001') WHERE kind = 'ObjectCreated'", 1, "window[0]"),
        ("UPDATE policies SET body = replace(body, '\"1h\"', '\"2h\"')", 1, "policy's hash"),
        ("UPDATE decisions SET at = at + 1000000 WHERE version = 3", 3, "planned_at"),
        ("UPDATE model_state SET body = replace(body, '1000', '1001')", 9, "state after: window"),
        (
            "UPDATE effects SET body = replace(body, 'retraining', 'another') WHERE kind = 'StartExecution'",
            3,
            "machine",
        ),
    ],
)
def test_whatever_in_the_ledger_is_tampered_with_is_found(
    ledger: Path, capsys: Out, statement: str, decision: int, what: str
) -> None:
    tampered(ledger, statement)
    assert run("replay", "--model", "recommender") == 1
    out = capsys.readouterr().out
    assert f"recommender-{decision} differs:" in out
    assert what in out


def test_what_was_recorded_before_policies_were_kept_is_told(ledger: Path, capsys: Out) -> None:
    tampered(ledger, "UPDATE decisions SET recorded_by = NULL WHERE version < 3 AND model = 'recommender'")
    assert run("replay", "--model", "recommender") == 0
    assert capsys.readouterr().out.splitlines() == [
        "recommender: no decision replayed",
        f"  2 cannot be replayed: {replay.NO_POLICY}",
        f"  7 cannot be replayed: {replay.NO_STATE}",
    ]
    assert run("replay", "recommender-1") == 1
    assert f"recommender-1 cannot be replayed: {replay.NO_POLICY}" in capsys.readouterr().err


@pytest.mark.usefixtures("ledger")
def test_what_is_not_there_is_told(capsys: Out) -> None:
    for args, said in (
        (["nobody-1"], "there is no decision, event identity or execution 'nobody-1'"),
        (["--model", "nobody"], "no decisions on 'nobody'; it has some on: other, recommender"),
        ([], "say which decision, or --all, or --model NAME"),
        (["recommender-1", "--all"], "say which decision, or --all, or --model NAME"),
    ):
        assert run("replay", *args) == 1
        assert said in capsys.readouterr().err


def test_a_ledger_is_replayed_beside_the_daemon_that_writes_to_it(ledger: Path, capsys: Out) -> None:
    async def beside() -> None:
        opened = await SqlLedger.open(f"sqlite:///{ledger}")
        story = Story(opened)
        story.now += timedelta(hours=9)
        await story.tell(arrived("recommender", 99))
        assert await asyncio.to_thread(run, "replay", "--all") == 0
        await opened.close()

    ran(beside())
    assert "recommender: 10 decisions replayed, all identical" in capsys.readouterr().out
