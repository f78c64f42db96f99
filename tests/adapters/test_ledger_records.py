"""What every ledger promises of what it tells: decisions, schedules, refused messages, and what compacting leaves."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

from retrainer.core.effects import AnswerApproval
from retrainer.core.events import ApprovalAnswered, ModelPaused
from retrainer.core.record import dump
from retrainer.ports import Committed, Ledger, Quarantined
from tests.fakes.story import START, Story, approval_requested, arrived, promoted, requested

HOUR = timedelta(hours=1)


async def test_active_models_are_those_with_an_execution_or_a_moment_to_wake_at(ledger: Ledger) -> None:
    names = ("idle", "planned", "running", "cooling", "ended")
    idle, planned, running, cooling, ended = (Story(ledger, name) for name in names)
    await idle.tell(arrived("idle", 1))
    await planned.planned()
    await running.running()
    await cooling.tell(promoted(await cooling.running()))
    await cooling.stocked()
    await cooling.tell(requested("r2"))
    await ended.tell(promoted(await ended.running()))
    active = await ledger.active()
    assert set(active) == {"planned", "running", "cooling"}
    assert active["cooling"] == await ledger.state("cooling")


async def test_a_schedules_cursor_moves_on_and_never_back(ledger: Ledger) -> None:
    assert await ledger.seen_until("recommender", "nightly") is None
    for seen, stands in ((START, START), (START + HOUR, START + HOUR), (START, START + HOUR)):
        await ledger.see("recommender", "nightly", seen)
        assert await ledger.seen_until("recommender", "nightly") == stands
    assert await ledger.seen_until("vision", "nightly") is None


async def test_replicas_moving_one_cursor_at_once_leave_it_at_the_latest(ledger: Ledger) -> None:
    hours = [3, 8, 0, 5, 7, 1, 8, 2]
    await asyncio.gather(*(ledger.see("recommender", "nightly", START + n * HOUR) for n in hours))
    assert await ledger.seen_until("recommender", "nightly") == START + 8 * HOUR


async def test_a_refused_message_is_kept_once_a_queue(ledger: Ledger) -> None:
    message = Quarantined(message_id="m1", queue="events", received_at=START, why="no JSON", body="{")
    await ledger.quarantine(message)
    await asyncio.gather(*(ledger.quarantine(replace(message, why="again")) for _ in range(3)))
    await ledger.quarantine(replace(message, queue="alarms"))
    assert (await ledger.counts())["quarantine"] == 2


async def test_decisions_are_told_newest_first_and_of_one_model_if_wanted(ledger: Ledger) -> None:
    one, two = Story(ledger, "one"), Story(ledger, "two")
    for number in range(3):
        await one.tell(arrived("one", number))
        await two.tell(arrived("two", number))
    assert [d.id for d in await ledger.decisions(None, limit=3)] == ["two-3", "one-3", "two-2"]
    assert [d.id for d in await ledger.decisions("one", limit=2)] == ["one-3", "one-2"]
    assert await ledger.decisions("three", limit=9) == []


async def test_a_task_token_is_kept_for_its_answer_and_never_told(story: Story) -> None:
    token = 'to"ken\\with quotes'
    name = await story.running()
    await story.tell(approval_requested(name, token))
    await story.tell(ApprovalAnswered(request="a1", execution=name, approved=True, by="ana"))
    (owed,) = await story.ledger.owed(story.now, limit=9, lease_seconds=60)
    assert isinstance(owed.effect, AnswerApproval)
    assert owed.effect.task_token == token
    told = await story.ledger.decisions("recommender", limit=99)
    assert not any("ken" in dump_of.event.replace("task_token", "") for dump_of in told)
    assert json.loads(told[1].event) == {"execution": name, "model_package_arn": None, "task_token": "(left out)"}


async def test_words_that_look_like_a_task_token_are_told_as_they_are(story: Story) -> None:
    entry = await story.tell(ModelPaused(request="p1", by="task_token", why='the "task_token": is lost'))
    told = await story.ledger.decision("request:p1")
    assert told
    assert told.event == dump(entry.event)


# --- compacting ---


async def test_compacting_drops_the_bodies_of_what_is_settled_and_nothing_else(story: Story) -> None:
    await story.tell(promoted(await story.running()))
    await story.effect()
    ledger, later = story.ledger, story.now + HOUR
    await ledger.quarantine(Quarantined(message_id="m", queue="q", received_at=START, why="no JSON", body="{" * 99))
    counts, state, told = (
        await ledger.counts(),
        await ledger.state("recommender"),
        await ledger.decisions(None, limit=9),
    )
    size = await ledger.size_bytes()
    # Five events but the newest, the evidence and the start that are done, and the refused message.
    assert await ledger.compact(later) == 5 + 2 + 1
    assert await ledger.compact(later) == 0
    assert await ledger.counts() == counts
    assert await ledger.state("recommender") == state
    assert await ledger.decisions(None, limit=9) == [told[0], *(replace(decision, event="") for decision in told[1:])]
    assert await ledger.decision("request:r1") == replace(told[3], event="")
    # PostgreSQL keeps what a row was until it vacuums.
    assert await ledger.size_bytes() <= size + 4 * 8192
    assert await ledger.known("recommender", [d.event_identity for d in told]) == {d.event_identity for d in told}
    assert await ledger.commit([await story.entry(requested("r1"))]) == [Committed.DUPLICATE]
    (owed,) = await ledger.owed(later, limit=9, lease_seconds=60)
    assert owed.effect.key == "recommender-6.measure"


async def test_compacting_leaves_what_is_not_older_and_what_is_needed_to_make_that_again(story: Story) -> None:
    for number in range(4):
        await story.tell(arrived("recommender", number))
    told = await story.ledger.decisions(None, limit=9)
    assert await story.ledger.kept_state("recommender", 9) == 0
    # No state was kept before then that the rest could be made from; now one is, for the next time.
    assert await story.ledger.compact(told[1].at) == 0
    assert await story.ledger.decisions(None, limit=9) == told
    assert await story.ledger.kept_state("recommender", 9) == 4
    for number in range(4, 6):
        await story.tell(arrived("recommender", number))
    assert await story.ledger.compact(story.now) == 4
    events = [decision.event for decision in reversed(await story.ledger.decisions(None, limit=9))]
    assert events[:4] == [""] * 4
    assert all(events[4:])


async def test_compacting_does_not_stop_at_the_first_piece(ledger: Ledger) -> None:
    stories = [Story(ledger, f"model-{number}") for number in range(40)]
    for number in range(15):
        await asyncio.gather(*(story.tell(arrived(story.model, number)) for story in stories))
    assert await ledger.compact(stories[0].now + HOUR) == 40 * 14
