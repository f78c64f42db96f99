"""A suggestion is found on the first part of a history and judged on the rest, and says so when it is no better."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from retrainer.adapters.policy_files import Defaults, load
from retrainer.backtest import suggest as module
from retrainer.backtest.history import History
from retrainer.backtest.results import Result
from retrainer.backtest.statistics import Series
from retrainer.backtest.suggest import DEFAULT, Suggestion, as_json, sheets, space_of, suggest
from retrainer.backtest.summary import costs
from retrainer.core.policy import Policy
from retrainer.ports import ConfigError
from tests.backtest.synthetic import PRICE, Run, history, policy, wandering

BATCHES = 150
CUT = 90


def found(truth: Series, declared: Policy | None = None, regret_at: float = PRICE) -> Suggestion:
    return suggest(declared or policy(), history(BATCHES), Run(truth, regret_at=regret_at))


@pytest.mark.parametrize("seed", range(5))
def test_the_pick_does_not_depend_on_what_came_after_the_search(seed: int) -> None:
    calm = wandering(seed, BATCHES, wild=0.5)
    other = np.concatenate([calm[:CUT], calm[CUT - 1] + np.cumsum(np.full(BATCHES - CUT, 25.0))])
    first, second = found(calm), found(other)
    assert first.pick.candidate == second.pick.candidate
    assert first.tried == second.tried
    assert first.pick.cost != second.pick.cost


@pytest.mark.parametrize("seed", range(5))
def test_what_is_reported_of_the_pick_is_its_cost_on_the_rest_alone(seed: int) -> None:
    truth = wandering(seed, BATCHES)
    made = found(truth)
    whole = Run(truth)(made.pick.candidate.policy, history(BATCHES))
    after = [c for s, c in zip(whole.served, costs(whole), strict=True) if s.index >= CUT]
    assert made.pick.cost.value == pytest.approx(sum(after))
    assert made.pick.searched < made.pick.cost.value / 2


@pytest.mark.parametrize("seed", range(5))
def test_a_pick_that_the_rest_turns_against_stays_the_pick_and_is_called_worse(seed: int) -> None:
    # An eager regret is beaten where hardly anything moves, and beats those who retrain rarely once everything does.
    made = found(wandering(seed, BATCHES, calm=0.5, wild=8.0), regret_at=10)
    cheapest = min(made.held, key=lambda h: h.cost.value)
    assert made.pick.searched == min(h.searched for h in made.held)
    assert cheapest.candidate != made.pick.candidate
    assert "; worse)" in made.verdict
    assert made.verdict.endswith("Keep the default.")


def test_the_search_is_never_shown_a_batch_of_the_rest() -> None:
    run = Run(wandering(0, BATCHES))
    made = suggest(policy(), history(BATCHES), run, best=2)
    searches = len(made.tried)
    assert set(run.shown[:searches]) == {CUT}
    assert run.shown[searches:] == [BATCHES] * len(made.held)


def test_one_that_cannot_be_told_from_the_default_is_said_not_to_be() -> None:
    truth = np.cumsum(np.random.default_rng(3).normal(0.5, 2.0, BATCHES))
    made = found(truth, regret_at=20)
    assert made.pick.difference is not None
    assert made.pick.difference.interval is not None
    assert 0 in made.pick.difference.interval
    assert "cannot be told apart" in made.verdict
    assert "There is no reason to change" in made.verdict


def test_one_that_is_better_on_the_rest_as_well_is_said_to_be_worth_a_try() -> None:
    # The declared policy and the default both retrain at every batch.
    made = found(wandering(1, BATCHES, calm=0.5, wild=0.5), policy(triggers={"volume": {"rows": 100}}), regret_at=0.1)
    assert made.pick.candidate.name not in (DEFAULT, module.DECLARED)
    assert "better there, too" in made.verdict
    assert made.verdict.endswith("It is worth a try.")


def test_of_policies_that_did_the_same_in_the_search_one_is_judged() -> None:
    # Here neither drift nor performance ever retrains: all of them are one.
    made = suggest(policy(), history(BATCHES), Run(np.zeros(BATCHES)), best=10)
    costs_searched = [h.searched for h in made.held if h.candidate.name not in (DEFAULT, module.DECLARED)]
    assert len(costs_searched) == len(set(costs_searched))


def test_the_default_that_wins_the_search_leaves_nothing_to_change() -> None:
    # The truth stands still and jumps every twenty batches: who counts rows retrains for nothing, or late.
    made = found(np.repeat(np.arange(BATCHES / 20 + 1) * 20.0, 20)[3 : BATCHES + 3])
    assert made.pick.candidate.name == DEFAULT
    assert "Nothing in the space was cheaper than the default" in made.verdict


def test_the_fragment_pasted_into_the_file_is_the_policy_that_was_judged(tmp_path: Path) -> None:
    declared = policy()
    for candidate in space_of(declared, history(BATCHES)):
        text = module.fragment(declared, candidate.policy, "why\nnot")
        assert text.startswith("# why\\u000anot\n")
        pasted = YAML(typ="safe").load(text) or {}
        file = declared.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        file["data"].update(pasted.pop("data", {}))
        with (path := tmp_path / "shop.yaml").open("w") as out:
            YAML().dump({**file, **pasted}, out)
        assert load(path, Defaults()) == candidate.policy


def test_the_space_holds_every_kind_of_trigger_and_no_policy_twice() -> None:
    names = [c.name for c in space_of(policy(), history(BATCHES))]
    kinds = ("regret", "performance", "drift of a column", "drift share", "thresholds", "volume", "weekly", "cooldown")
    assert [kind for kind in kinds if not any(kind in name for name in names)] == []
    policies = [c.policy for c in space_of(policy(), history(BATCHES))]
    assert all(a != b for n, a in enumerate(policies) for b in policies[:n])
    assert len(policies) < 40


def test_a_policy_without_predictions_or_columns_is_offered_what_it_can_have() -> None:
    bare = policy(data={"bucket": "b", "prefix": "data/shop/", "timestamp": "at"})
    names = [c.name for c in space_of(bare, history(BATCHES))]
    assert names
    assert all(name.startswith("volume") or name in module.CRONS for name in names)
    made = found(wandering(0, BATCHES), bare)
    assert made.default == module.DECLARED


def test_what_an_operator_must_not_do_is_in_every_candidate() -> None:
    declared = policy()
    assert all(c.policy.guards.freezes == declared.guards.freezes for c in space_of(declared, history(BATCHES)))
    made = found(wandering(0, BATCHES))
    assert all(h.candidate.policy.guards.freezes == declared.guards.freezes for h in made.held)


def test_without_a_price_there_is_nothing_to_search_by() -> None:
    with pytest.raises(ConfigError, match="write what they cost"):
        suggest(policy(), history(BATCHES), Run(wandering(0, BATCHES), price=None))


def test_a_candidate_that_says_no_price_is_weighed_at_the_default_ones() -> None:
    class OnlyRegretSays(Run):
        def __call__(self, policy: Policy, history: History) -> Result:
            made = super().__call__(policy, history)
            return made if policy.triggers.regret else replace(made, price=None)

    truth = wandering(0, BATCHES)
    assert suggest(policy(), history(BATCHES), OnlyRegretSays(truth)).tried == found(truth).tried


def test_too_short_a_history_is_refused_with_what_to_give() -> None:
    with pytest.raises(ConfigError, match="give a longer history"):
        suggest(policy(), history(20), Run(wandering(0, 20)))


def test_the_sheets_and_the_json_show_the_default_and_the_spread_beside_the_pick() -> None:
    made = found(wandering(2, BATCHES))
    search, rest = sheets(made)
    assert rest.rows[0][0] == made.pick.candidate.name
    assert DEFAULT in [row[0] for row in rest.rows]
    assert made.verdict in rest.notes
    assert len(search.rows) == len(made.tried)
    told = as_json(made)
    assert told["pick"] == rest.rows[0][0]
    assert all(h["cost"]["low"] <= h["cost"]["value"] <= h["cost"]["high"] for h in told["held"])
