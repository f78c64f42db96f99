"""A queue full of hostile messages is emptied: each is acknowledged or refused with its reason, none is in the way."""

import pytest

from retrainer.core.events import ObjectCreated
from retrainer.ports import Verdict
from tests.hostile.envelopes import PARSER, SAMPLES, every_single_change
from tests.loop.house import House, World, policy, until

pytestmark = pytest.mark.looptime

EVERY = 7
"""One in so many of the changed envelopes: enough of each kind."""


async def test_every_message_has_one_fate_and_what_is_good_among_them_is_decided() -> None:
    data = {"bucket": "artifacts", "prefix": "data/recommender/", "timestamp": "timestamp"}
    world = World(policies={"recommender": policy(data=data, triggers={"volume": {"rows": 10**9}})})
    house = House(world)
    house.intake.parser = PARSER
    bodies = [*[body for _, body in every_single_change()][::EVERY], SAMPLES["object_created"]]
    world.inbox.send(*bodies)
    async with house.alive():
        await until(lambda: not world.inbox.bodies)
    answers = [(body, PARSER.parse(body)) for body in bodies]
    refused = [(body, a.why) for body, a in answers if a.verdict in (Verdict.MALFORMED, Verdict.FOREIGN)]
    assert sorted(world.inbox.dead) == sorted(refused)
    assert (await world.ledger.counts())["quarantine"] == len(refused) > 500
    recorded = {d.event_identity for d in await world.ledger.decisions("recommender", limit=10_000)}
    for model, event in (told for _, answer in answers for told in answer.events):
        watched = isinstance(event, ObjectCreated) and event.key.startswith("data/recommender/")
        assert (event.identity in recorded) == (watched or model == "recommender")
