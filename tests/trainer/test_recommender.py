from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer import artefact, ranking, train, windows
from trainer.contract import DivergedError, Paths, StopRequest
from trainer.data import catalogue, index_of, sequences
from trainer.ease import Ease
from trainer.popularity import popularity
from trainer.recommender import Feed, Hyperparameters, Sasrec, Trainer, renew
from trainer.recommender_numpy import SequenceRanker

from .conftest import cycle, pack

torch.set_num_threads(1)
FAST = {"model": "sasrec", "dimension": "16", "window": "8", "epochs": "3"}


class StopAfter(StopRequest):
    """A SIGTERM that arrives just before the n-th step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


def weights_of(paths: Paths) -> str:
    return str(json.loads((paths.model / "manifest.json").read_text())["weights_sha256"])


def random_net(p: Hyperparameters, items: int) -> Sasrec:
    torch.manual_seed(1)
    net = Sasrec(items, p).eval()
    for parameter in net.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    return net


@pytest.mark.parametrize("length", [1, 5, 8, 9, 30])
def test_the_numpy_forward_pass_equals_the_torch_one(length: int) -> None:
    p = Hyperparameters(dimension=12, heads=3, blocks=2, window=8)
    net = random_net(p, 40)
    weights = {name: t.numpy() for name, t in net.state_dict().items()}
    ranker = SequenceRanker(np.arange(40), np.zeros(40, np.float32), weights, p.heads)
    history_T = np.random.default_rng(length).integers(0, 40, length)
    with torch.no_grad():
        hidden_D = net(torch.from_numpy(history_T[-8:])[None])[0, -1]
        want_I = (net.item_embedding @ hidden_D + net.item_bias).numpy()
    np.testing.assert_allclose(ranker.rolling(history_T, length)[0], want_I, atol=1e-4)


def test_every_prefix_gets_a_row_and_sees_no_later_item() -> None:
    p = Hyperparameters(dimension=8, window=6)
    weights = {name: t.numpy() for name, t in random_net(p, 20).state_dict().items()}
    ranker = SequenceRanker(np.arange(20), np.arange(20, dtype=np.float32), weights, p.heads)
    history_T = np.random.default_rng(0).integers(0, 20, 25)
    score_PI = ranker.rolling(history_T, 0)
    assert score_PI.shape == (26, 20)
    np.testing.assert_allclose(score_PI[0], np.arange(20))
    changed_T = history_T.copy()
    changed_T[10:] = (changed_T[10:] + 1) % 20
    np.testing.assert_allclose(ranker.rolling(changed_T, 0)[:11], score_PI[:11], atol=1e-4)
    np.testing.assert_allclose(ranker.rolling(history_T[:6], 2), score_PI[2:7], atol=1e-4)


def test_the_wide_part_is_added_to_every_prefix_that_holds_an_item_it_knows() -> None:
    p = Hyperparameters(dimension=8, window=6)
    draws = np.random.default_rng(0)
    weights = {name: t.numpy() for name, t in random_net(p, 20).state_dict().items()}
    item_I, kept_J = np.arange(100, 120), np.array([100, 103, 104, 111, 119])  # the wide part knows five items
    wide = Ease(kept_J, np.zeros(5, np.float32), draws.normal(size=(5, 5)).astype(np.float32), halflife=3.0)
    deep = SequenceRanker(item_I, np.ones(20, np.float32), weights, p.heads)
    both = SequenceRanker(item_I, np.ones(20, np.float32), weights, p.heads, wide, blend=2.0)
    history_T = np.array([1, 3, 7, 19, 0, 2, 11, 3, 5])
    for start in (0, 2, 9):
        added_PI = both.rolling(history_T, start) - deep.rolling(history_T, start)
        for row, prefix in enumerate(range(start, len(history_T) + 1)):
            known = [int(np.searchsorted(kept_J, 100 + item)) for item in history_T[:prefix] if 100 + item in kept_J]
            want_J = sum(
                2.0 * 0.5 ** (age / 3.0) * wide.weight_II[place] for age, place in enumerate(reversed(known))
            ) + np.zeros(5)
            np.testing.assert_allclose(added_PI[row, kept_J - 100], want_J, atol=1e-4)
            assert np.abs(np.delete(added_PI[row], kept_J - 100)).max() == 0


def test_windows_hold_every_step_of_every_sequence_once() -> None:
    lists = [np.arange(n) + 100 * n for n in (1, 2, 8, 9, 30)]
    window_BL, place_B2 = windows.cut(lists, 8, -1, np.random.default_rng(0))
    steps = {(int(a), int(b)) for row in window_BL for a, b in pairwise(row) if b != -1}
    assert steps == {(int(a), int(b)) for items in lists for a, b in pairwise(items)}
    assert len(steps) == np.count_nonzero(window_BL[:, 1:] != -1)
    assert all(row[row != -1][-1] == lists[user][end] for row, (user, end) in zip(window_BL, place_B2, strict=True))


def test_a_replay_is_all_windows_with_new_rows_and_as_many_old_ones_as_asked() -> None:
    place_B2 = np.array([[0, 4], [0, 9], [1, 3], [2, 5], [2, 1], [3, 2]])
    old_U = [9, 4, 0, 3]  # user 0 has one new item, user 2 is new, users 1 and 3 have nothing new
    for replay, count in ((0.0, 3), (0.4, 5), (1.0, 6), (9.0, 6)):
        chosen = windows.with_replay(place_B2, old_U, replay, np.random.default_rng(1))
        assert {1, 3, 4} <= set(chosen.tolist())
        assert len(chosen) == count
    assert len(windows.with_replay(place_B2, [99] * 4, 1.0, np.random.default_rng(1))) == 6, "nothing new: all of them"


@pytest.mark.parametrize("softmax_items_max", ["1000", "0"])
def test_it_learns_what_comes_next(job: Callable[..., Paths], softmax_items_max: str) -> None:
    rows = cycle()
    learnt, held_out = rows.rows(slice(0, 3000)), rows.rows(slice(3000, None))
    paths = job("one", learnt, **FAST, softmax_items_max=softmax_items_max)
    assert train.main(paths, StopRequest()) == 0
    users = ranking.cases_of(learnt, held_out)
    ndcg = ranking.measure(artefact.load(paths.model).predictor, users)["ndcg_at_10"]["value"]
    assert ndcg > 0.6
    assert ndcg > 5 * ranking.measure(popularity(learnt), users)["ndcg_at_10"]["value"]


@pytest.mark.parametrize("seed", range(3))
def test_a_job_stopped_at_any_step_resumes_bit_identical(job: Callable[..., Paths], seed: int) -> None:
    whole, parts = job("whole", **FAST), job("parts", **FAST)
    train.main(whole, StopRequest())
    draws = np.random.default_rng(seed)
    for stop in draws.integers(0, 70, size=2):
        train.main(parts, StopAfter(int(stop)))
        assert not parts.model.exists()
    train.main(parts, StopRequest())
    assert weights_of(parts) == weights_of(whole)


def test_a_corrupt_newest_checkpoint_falls_back_to_the_one_before(
    job: Callable[..., Paths], capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = job("whole", **FAST), job("parts", **FAST)
    train.main(whole, StopRequest())
    for stop in (10, 20):
        train.main(parts, StopAfter(stop))
    newest = max(parts.checkpoints.glob("*.safetensors"), key=lambda file: file.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:1000])
    train.main(parts, StopRequest())
    assert "checkpoint_skipped reason=unreadable" in capsys.readouterr().out
    assert weights_of(parts) == weights_of(whole)


def test_a_checkpoint_of_other_data_is_not_used(job: Callable[..., Paths], capsys: pytest.CaptureFixture[str]) -> None:
    paths = job("one", **FAST)
    train.main(paths, StopAfter(5))
    job("one", cycle(seed=9), **FAST)
    train.main(paths, StopRequest())
    said = capsys.readouterr().out
    assert "checkpoint_skipped reason=other_data_or_hyperparameters" in said
    assert "resumed" not in said


def test_a_warm_start_keeps_what_the_champion_knows_and_takes_in_new_items(job: Callable[..., Paths]) -> None:
    first = job("first", cycle(items=100), **FAST)
    train.main(first, StopRequest())
    rows = cycle(seed=5)
    learnt, held_out = rows.rows(slice(0, 3000)), rows.rows(slice(3000, None))
    second = job("second", learnt, **FAST, generation="2", epochs_warm="2")
    pack(first.model, second.channel("champion") / "model.tar.gz")
    train.main(second, StopRequest())
    model = artefact.load(second.model)
    assert model.manifest["parent_weights_sha256"] == weights_of(first)
    assert model.manifest["generation"] == 2
    assert np.array_equal(model.predictor.item_I, catalogue(rows))
    assert ranking.measure(model.predictor, ranking.cases_of(learnt, held_out))["ndcg_at_10"]["value"] > 0.5


def test_a_warm_start_learns_from_new_rows_and_replays_old_ones(
    job: Callable[..., Paths], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = cycle()
    settings = FAST | {"epochs": "2", "validation_share": "0", "replay": "0.5"}
    first = job("first", rows.rows(slice(0, 3000)), **settings)
    train.main(first, StopRequest())
    second = job("second", rows, **settings, epochs_warm="1", interruption_seconds="0")
    pack(first.model, second.channel("champion") / "model.tar.gz")
    capsys.readouterr()
    assert train.main(second, StopAfter(3)) == 0
    train.main(second, StopRequest())
    said = capsys.readouterr().out
    assert f"new_rows={len(rows) - 3000};" in said
    assert "resumed epoch=0; step=3;" in said
    untouched = job("untouched", rows, **settings, epochs_warm="1")
    pack(first.model, untouched.channel("champion") / "model.tar.gz")
    train.main(untouched, StopRequest())
    assert weights_of(second) == weights_of(untouched)


@pytest.mark.parametrize("other", [{"dimension": "8"}, {"window": "16"}, {"blocks": "2"}])
def test_a_champion_of_another_shape_means_a_cold_start(
    job: Callable[..., Paths], other: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    short = {**FAST, "epochs": "1"}
    first, second = job("first", **short), job("second", **(short | other))
    train.main(first, StopRequest())
    pack(first.model, second.channel("champion") / "model.tar.gz")
    train.main(second, StopRequest())
    assert "cold_start reason=the champion has another shape" in capsys.readouterr().out


def test_a_champion_that_cannot_be_read_does_not_stop_the_retraining(
    job: Callable[..., Paths], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = job("one", **(FAST | {"epochs": "1"}))
    paths.channel("champion").mkdir()
    (paths.channel("champion") / "model.tar.gz").write_bytes(b"not an archive")
    assert train.main(paths, StopRequest()) == 0
    assert "champion_refused" in capsys.readouterr().out


def test_no_champion_is_said_by_a_json_file(job: Callable[..., Paths]) -> None:
    paths = job("one", **(FAST | {"epochs": "1"}))
    paths.channel("champion").mkdir()
    (paths.channel("champion") / "none.json").write_text("{}")
    assert train.main(paths, StopRequest()) == 0


def test_a_loss_that_runs_away_is_diverged(job: Callable[..., Paths]) -> None:
    with pytest.raises(DivergedError, match="give a learning_rate below"):
        train.main(job("one", **FAST, learning_rate="1e5"), StopRequest())


def test_it_stops_early_and_still_learns_from_the_newest_rows(
    job: Callable[..., Paths], capsys: pytest.CaptureFixture[str]
) -> None:
    train.main(job("one", **(FAST | {"epochs": "40", "patience": "1"})), StopRequest())
    epochs = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch_ended")]
    assert 2 < len(epochs) < 40
    assert f"epoch={len(epochs)}; of={len(epochs)};" in epochs[-1]
    assert "ndcg_at_10" in epochs[-2]
    assert "ndcg_at_10" not in epochs[-1]  # it has learnt the validation rows


@pytest.mark.parametrize("rows", [1, 2, 30])
def test_very_few_rows_still_give_a_model(job: Callable[..., Paths], rows: int) -> None:
    for family in (FAST, {"model": "ease"}):
        paths = job(family["model"], cycle().rows(slice(0, rows)), **family)
        assert train.main(paths, StopRequest()) == 0
        assert np.isfinite(artefact.load(paths.model).predictor.rolling(np.zeros(1, np.int64), 0)).all()


def test_renewal_leaves_a_net_alone_that_knows_nothing() -> None:
    net = random_net(Hyperparameters(dimension=8), 30)
    before = net.item_embedding.detach().clone()
    rows = cycle()
    lists = [index_of(catalogue(rows), rows.item_N[position_T]) for _user, position_T in sequences(rows)]
    renew(net, torch.zeros(30, dtype=torch.bool), lists, Hyperparameters(dimension=8), renewal=0.5)
    assert torch.equal(net.item_embedding, before)


def test_a_model_is_its_files_and_no_temporary_one(job: Callable[..., Paths]) -> None:
    paths = job("one", **(FAST | {"epochs": "1"}))
    train.main(paths, StopRequest())
    assert sorted(file.name for file in Path(paths.model).iterdir()) == sorted([*artefact.NAMES, "code"])


@pytest.mark.parametrize("softmax_items_max", [1000, 0])
def test_the_shares_of_a_batch_make_the_loss_of_the_batch(
    softmax_items_max: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What two processes average is what one computes; dropout apart, which each draws for itself."""
    p = Hyperparameters(dimension=8, window=6, dropout=0.0, softmax_items_max=softmax_items_max, negatives=5)
    lists = [np.random.default_rng(n).integers(0, 30, 5 + n) for n in range(9)]
    feed = Feed(fit=lists, full=lists, known_I=torch.zeros(30, dtype=torch.bool))
    trainer = Trainer(random_net(p, 30), feed, p, lambda _weights: {}, tmp_path)
    trainer.begin_epoch(0)
    batch_BL = trainer.window_BL[:7]
    whole = trainer.loss(batch_BL, 0, 0).item()
    monkeypatch.setenv("WORLD_SIZE", "2")
    parts = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        parts.append(trainer.loss(batch_BL, 0, 0).item())
    assert parts[0] != pytest.approx(parts[1])
    assert sum(parts) / 2 == pytest.approx(whole, rel=1e-5)
