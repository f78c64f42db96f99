"""A causal transformer that names the next item, beside a linear model that remembers the whole history.

The transformer is of eSASRec's class (Tikhonovich et al., RecSys 2025): SASRec (Kang and McAuley, ICDM 2018) with LiGR
blocks (Borisyuk et al., "From Features to Transformers", 2025) and a softmax over the catalogue, sampled where that is
large. Three things are ours. Embeddings have a spectral start (``spectral.py``) and residual branches start at zero, so
the untrained network already says what goes with the last items. EASE, fitted on the same rows, is added to the logits
(``blend``), a wide part beside the deep one (Cheng et al., "Wide & Deep Learning", 2016). And a warm start learns from
the champion's weights, the new rows, and a replay of old ones.

MovieLens-100K, full ranking, 18 epochs (dropout .4), mean and spread of three seeds, torch 2.13.0 on one thread of a
2-core machine (``bench/trainer/sequences.py``): leave-one-out nDCG@10 .1301 +- .0022 in 44 CPU s, rolling next
item .1313 +- .0003 in 35 CPU s. The transformer alone: .1194 and .1152; EASE with its defaults: .1055 and .1031.
A warm start when a tenth of the rows is new: .1317 +- .0005 in 2.9 CPU s (from scratch .1313 in 35).

Shapes: I items, T one user's history, L window, D dimension, H heads, F inner width, B windows of the whole batch, b of
this process, M predicted positions, C candidates of the softmax.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name the whole field uses
from torch import Tensor, nn

from trainer import artefact, data, ease, loop, optimisers, parallel, ranking, spectral, tensors, windows
from trainer.bootstrap import Metrics
from trainer.contract import HyperparameterError, setting
from trainer.data import FloatArray, IntArray, Interactions
from trainer.families import Job, Trained
from trainer.popularity import recent_counts
from trainer.progress import say
from trainer.recommender_numpy import BLEND_MAX, WIDE, SequenceRanker

WIDE_NEIGHBOURS = 200  # weights kept an item, the largest; also the default of ease.py
WARMUP_STEPS = 20
FALL_TO = 0.05  # of the learning rate, at the end; beside that an average of the last weights adds nothing
DIVERGED_FACTOR = 3.0  # a loss beyond so many times that of a uniform guess
WINDOWS, DRAWS, REPLAY = range(3)  # what a draw is for: each has numbers of its own
NOTES = ("last", "best_epoch", "best_metric", "metrics")  # of a Trainer, beside its tensors

Validate = Callable[[dict[str, npt.NDArray[Any]]], Metrics]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    model: str = setting("sasrec", choices=("sasrec",))
    generation: int = setting(0, low=0)
    seed: int = setting(0, low=0, high=2**63 - 1)  # what torch takes
    epochs: int = setting(3, low=1, high=10_000)
    epochs_warm: int = setting(2, low=1, high=10_000)  # after a warm start from the champion
    patience: int = setting(3, low=1)  # epochs without a better validation before the last one, over all rows, begins
    warm_start: str = setting("auto", choices=("auto", "never"))
    replay: float = setting(2.0, low=0.0, high=100.0)  # old windows for each new one, after a warm start
    renewal: float = setting(0.5, low=0.0, high=1.0)  # how far a warm start moves known items, see renew()
    dimension: int = setting(64, low=2, high=4096)
    window: int = setting(64, low=2, high=4096)
    heads: int = setting(2, low=1, high=64)
    blocks: int = setting(1, low=1, high=48)
    dropout: float = setting(0.2, low=0.0, high=0.9)
    learning_rate: float = setting(4e-3, low=0.0, high=1e6)
    weight_decay: float = setting(0.01, low=0.0, high=1.0)
    batch_windows: int = setting(8, low=1, high=65_536)
    negatives: int = setting(256, low=1, high=1_000_000)
    softmax_items_max: int = setting(2000, low=0)  # a larger catalogue is sampled
    spectral_scale: float = setting(0.5, low=0.0, high=10.0)  # 0: random embeddings
    blend: float = setting(10.0, low=0.0, high=BLEND_MAX)  # how much of EASE the logits are; 0: none
    blend_halflife: float = setting(40.0, low=0.1, high=1e6)  # items
    blend_regularisation: float = setting(200.0, low=1e-3, high=1e6)
    validation_share: float = setting(0.05, low=0.0, high=0.5)
    interruption_seconds: float = setting(3600.0, low=0.0)  # expected between two spot interruptions
    workers: int = setting(0, low=0, high=1024)


# ---- the network


class Block(nn.Module):
    """x + gate(x) * attention(norm(x)), then x + gate(x) * SwiGLU(norm(x)) (Shazeer 2020); gates are sigmoids."""

    def __init__(self, D: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out, self.gate1 = nn.Linear(D, 3 * D), nn.Linear(D, D), nn.Linear(D, D)
        self.up, self.down, self.gate2 = nn.Linear(D, 4 * D), nn.Linear(2 * D, D), nn.Linear(D, D)
        for branch_end in (self.out, self.down):
            nn.init.zeros_(branch_end.weight)
            nn.init.zeros_(branch_end.bias)

    def forward(self, x_BLD: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        q, k, v = self.qkv(self.norm1(x_BLD)).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        mixed_BLD = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, L, D)
        branch_BLD = F.dropout(self.out(mixed_BLD), self.dropout, self.training)
        x_BLD = x_BLD + torch.sigmoid(self.gate1(x_BLD)) * branch_BLD
        left_BLF, right_BLF = self.up(self.norm2(x_BLD)).chunk(2, dim=-1)
        branch_BLD = F.dropout(self.down(F.silu(left_BLF) * right_BLF), self.dropout, self.training)
        return x_BLD + torch.sigmoid(self.gate2(x_BLD)) * branch_BLD


class Sasrec(nn.Module):
    """Maps item indices to hidden states; the score of item i is ``hidden . item_embedding[i] + item_bias[i]``."""

    def __init__(self, items: int, p: Hyperparameters) -> None:
        super().__init__()
        self.item_embedding = nn.Parameter(torch.randn(items, p.dimension) * p.dimension**-0.5)
        self.position_embedding = nn.Parameter(torch.randn(p.window, p.dimension) * 0.02)
        self.item_bias = nn.Parameter(torch.zeros(items))
        self.blocks = nn.ModuleList(Block(p.dimension, p.heads, p.dropout) for _ in range(p.blocks))
        self.norm = nn.LayerNorm(p.dimension)
        self.dropout = p.dropout

    def forward(self, index_BL: Tensor) -> Tensor:
        D = self.item_embedding.shape[1]
        x_BLD = F.embedding(index_BL, self.item_embedding) * D**0.5 + self.position_embedding[: index_BL.shape[1]]
        x_BLD = F.dropout(x_BLD, self.dropout, self.training)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        hidden_BLD: Tensor = self.norm(x_BLD)
        return hidden_BLD


# ---- where it starts


def cold(fit: list[IntArray], items: int, p: Hyperparameters) -> Sasrec:
    """Starts from ``fit`` alone: a start that had seen the validation rows would make the selection worthless."""
    torch.manual_seed(p.seed)
    net = Sasrec(items, p)
    share_I = torch.from_numpy(np.bincount(np.concatenate(fit), minlength=items)).float()
    bias_I = torch.log(share_I / share_I.sum() + 1e-5)
    net.item_bias.data = bias_I - bias_I.mean()
    vector_ID = spectral.embedding(spectral.co_occurrence(fit, items), p.dimension, p.spectral_scale, p.seed)
    if vector_ID is not None:
        net.item_embedding.data = vector_ID.contiguous()
    return net


def warm(
    champion: SequenceRanker, item_I: IntArray, known_I: Tensor, fit: list[IntArray], p: Hyperparameters
) -> Sasrec | None:
    """The champion's weights with rows for the new items, or None when the shapes do not fit."""
    torch.manual_seed(p.seed)
    net = Sasrec(len(item_I), p)
    state = net.state_dict()
    grown = {"item_embedding": (len(champion.item_I), p.dimension), "item_bias": (len(champion.item_I),)}
    expected = {name: tuple(t.shape) for name, t in state.items()} | grown
    if {name: array.shape for name, array in champion.weights.items()} != expected or champion.heads != p.heads:
        return None
    place_I = np.searchsorted(champion.item_I, item_I).clip(max=len(champion.item_I) - 1)
    for name in state:
        array = champion.weights[name][place_I] if name in grown else champion.weights[name]
        state[name].copy_(torch.from_numpy(np.array(array)))
    renew(net, known_I, fit, p, p.renewal)
    return net


@torch.no_grad()
def renew(net: Sasrec, known_I: Tensor, sequences: list[IntArray], p: Hyperparameters, renewal: float) -> None:
    """Gives new items their spectral embedding, and moves known ones ``renewal`` of the way to theirs."""
    known_I = known_I.to(net.item_bias.device)
    if not bool(known_I.any()):
        return
    net.item_bias.copy_(torch.where(known_I, net.item_bias, net.item_bias[known_I].quantile(0.1)))
    count_II = spectral.co_occurrence(sequences, len(known_I))
    vector_ID = spectral.embedding(count_II, p.dimension, p.spectral_scale, p.seed)
    if vector_ID is not None:
        turned_ID = spectral.turned(vector_ID.to(known_I.device), net.item_embedding, known_I)
        kept_ID = torch.lerp(net.item_embedding, turned_ID, renewal)
        net.item_embedding.copy_(torch.where(known_I[:, None], kept_ID, turned_ID))


# ---- what it is fed


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What is learnt from, user by user."""

    fit: list[IntArray]  # without the validation rows
    full: list[IntArray]
    known_I: Tensor  # the champion's items
    old_U: list[int] | None = None  # how many of a user's items the champion has learnt; None after a cold start


def log_q(sequences: list[IntArray], items: int, p: Hyperparameters) -> FloatArray:
    """The log of the probability that an item is among a batch's candidates: its targets and uniform negatives."""
    share_I = np.bincount(np.concatenate(sequences), minlength=items) / sum(map(len, sequences))
    missed_I = (1 - share_I) ** (p.batch_windows * p.window) * max(0.0, 1 - 1 / items) ** p.negatives
    return np.log(1 - missed_I).astype(np.float32)


# ---- how it learns


class Trainer:
    """The ``loop.Learner``. The last epoch is over all rows, the validation rows too: the newest are what a retraining
    is for. The others select: after ``patience`` of them without a better validation the last begins, from the best.
    """

    def __init__(self, net: Sasrec, feed: Feed, p: Hyperparameters, validate: Validate, checkpoints: Path) -> None:
        self.net, self.feed, self.p, self.validate = net.to(parallel.device()), feed, p, validate
        self.items = len(net.item_bias)
        self.forward = parallel.wrap(self.net, checkpoints)
        self.optimiser = optimisers.AdamW(self.net.named_parameters(), weight_decay=p.weight_decay)
        self.planned = self.last = (p.epochs if feed.old_U is None else p.epochs_warm) - 1
        self.learning_rate = p.learning_rate
        self.loss_max = DIVERGED_FACTOR * math.log(self.items + 1) + 1
        self.best = {name: t.clone() for name, t in self.net.state_dict().items()}
        self.best_epoch, self.best_metric, self.metrics = -1, -1.0, Metrics()
        self.log_q_I = log_q(feed.full, self.items, p) if self.items > p.softmax_items_max else None
        self.window_BL = np.zeros((0, p.window + 1), dtype=np.int64)
        if self.last == 0:
            self._widen()

    def epochs(self) -> int:
        return self.last + 1

    def steps(self, epoch: int) -> int:
        return math.ceil(len(self.window_BL) / self.p.batch_windows)

    def begin_epoch(self, epoch: int) -> None:
        sequences = self.feed.full if epoch == self.last else self.feed.fit
        draws = np.random.default_rng([self.p.seed, WINDOWS, epoch])
        self.window_BL, place_B2 = windows.cut(sequences, self.p.window, self.items, draws)
        if self.feed.old_U is not None:
            draws = np.random.default_rng([self.p.seed, REPLAY, epoch])
            self.window_BL = self.window_BL[windows.with_replay(place_B2, self.feed.old_U, self.p.replay, draws)]

    def step(self, epoch: int, step: int) -> Tensor:
        done = (self.planned if epoch == self.last else epoch) + step / self.steps(epoch)
        left = 1 - done / (self.planned + 1)
        rise = min(1.0, (epoch * self.steps(epoch) + step + 1) / WARMUP_STEPS)
        self.learning_rate = self.p.learning_rate * rise * max(FALL_TO, left)
        parallel.seed_draws(self.p.seed, DRAWS, epoch, step)
        loss = self.loss(self.window_BL[step * self.p.batch_windows :][: self.p.batch_windows], epoch, step)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step(self.learning_rate)
        return loss.detach()

    def loss(self, window_BL: IntArray, epoch: int, step: int) -> Tensor:
        """The mean cross-entropy over the whole batch. The host picks, so that nothing waits for the GPU."""
        padding, net = self.items, self.net
        window_bL = window_BL[parallel.share(len(window_BL))]
        place_M = np.flatnonzero(window_bL[:, 1:] != padding)
        target_M = window_bL[:, 1:].reshape(-1)[place_M]
        index_bL = np.where(window_bL[:, :-1] == padding, 0, window_bL[:, :-1])
        with parallel.half():
            hidden_bLD = self.forward(_sent(index_bL))
            hidden_MD = hidden_bLD.reshape(-1, hidden_bLD.shape[-1])[_sent(place_M)]
            if self.log_q_I is None:
                logit_MC = F.linear(hidden_MD, net.item_embedding, net.item_bias)
            else:
                draws = np.random.default_rng([self.p.seed, DRAWS, epoch, step])  # the same in every process
                real = window_BL[:, 1:][window_BL[:, 1:] != padding]
                candidate_C = np.union1d(real, draws.integers(0, self.items, self.p.negatives))
                target_M = np.searchsorted(candidate_C, target_M)
                place_C, log_q_C = _sent(candidate_C), _sent(self.log_q_I[candidate_C])
                logit_MC = F.linear(hidden_MD, net.item_embedding[place_C], net.item_bias[place_C] - log_q_C)
        total = F.cross_entropy(logit_MC.float(), _sent(target_M), reduction="sum")
        return total * (parallel.size() / np.count_nonzero(window_BL[:, 1:] != padding))

    def end_epoch(self, epoch: int) -> Mapping[str, float]:
        if epoch >= self.last:
            return {}
        metrics = self.validate(self.weights())
        told = dict(zip(metrics, parallel.firsts([metric["value"] for metric in metrics.values()]), strict=True))
        if metrics:
            self._select(epoch, told["ndcg_at_10"], metrics)
        if epoch + 1 == self.last:
            self._widen()
        return told

    def _widen(self) -> None:
        """Items that only the validation rows have get their place before the last epoch."""
        if self.feed.fit is not self.feed.full:
            in_fit_I = np.bincount(np.concatenate(self.feed.fit), minlength=self.items) > 0
            renew(self.net, torch.from_numpy(in_fit_I) | self.feed.known_I, self.feed.full, self.p, renewal=0.0)

    def _select(self, epoch: int, metric: float, metrics: Metrics) -> None:
        if metric > self.best_metric:
            self.best = {name: t.clone() for name, t in self.net.state_dict().items()}
            self.best_epoch, self.best_metric, self.metrics = epoch, metric, metrics
        if epoch - self.best_epoch >= self.p.patience:
            self.net.load_state_dict(self.best)
            self.last = epoch + 1

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        return {name: t.detach().float().cpu().numpy().copy() for name, t in self.net.state_dict().items()}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return self._tensors(), {name: getattr(self, name) for name in NOTES}

    def restore(self, tensors: Mapping[str, Tensor], notes: dict[str, Any]) -> None:
        loop.fill(self._tensors(), tensors)
        for name in NOTES:
            setattr(self, name, notes[name])

    def _tensors(self) -> dict[str, Tensor]:
        return loop.named(net=self.net.state_dict(), best=self.best, adam=self.optimiser.tensors())


def _sent(array: npt.NDArray[Any]) -> Tensor:
    return parallel.to_device(torch.from_numpy(array))


# ---- a job


def train(job: Job) -> Trained | None:
    p: Hyperparameters = job.p
    if p.dimension % p.heads:
        raise HyperparameterError(f"hyperparameter 'dimension' is {p.dimension}; give a multiple of heads ({p.heads})")
    rows = data.read(*job.paths.learned)
    item_I = data.catalogue(rows)
    earlier, later = data.validation_split(rows, p.validation_share)
    net, feed, parent = start(rows, earlier, item_I, job.champion() if p.warm_start == "auto" else None, p)
    users, popularity_I, beside = ranking.cases_of(earlier, later), recent_counts(rows, item_I), wide(earlier, later, p)

    def validate(weights: dict[str, npt.NDArray[Any]]) -> Metrics:
        ranker = SequenceRanker(item_I, popularity_I, weights, p.heads, beside, p.blend)
        return ranking.measure(ranker, users) if users else {}

    trainer = Trainer(net, feed, p, validate, job.paths.checkpoints)
    seen = tensors.digest({"user": rows.user_N, "item": rows.item_N, "time": rows.time_N})
    if not loop.run(trainer, job, loop.fingerprint(p, seen, parent)):
        return None
    arrays = {**trainer.weights(), "item_I": item_I, "popularity_I": popularity_I}
    config = {"family": "sasrec", "heads": p.heads, "blend": p.blend, "halflife": p.blend_halflife}
    if model := wide(rows, rows, p):
        arrays |= {WIDE + name: array for name, array in ease.tensors_of(model, WIDE_NEIGHBOURS).items()}
    return Trained(
        arrays=arrays,
        config=config,
        metrics=trainer.metrics,
        rows=len(rows),
        first_at=int(rows.time_N[0]),
        last_at=int(rows.time_N[-1]),
        parent=parent,
    )


def wide(rows: Interactions, wanted: Sized, p: Hyperparameters) -> ease.Ease | None:
    """EASE of these rows, where it has a part in the answer and somebody ``wanted`` one."""
    if p.blend == 0 or not wanted:
        return None
    return ease.fit(rows, ease.Hyperparameters(regularisation=p.blend_regularisation, halflife=p.blend_halflife))


def start(
    rows: Interactions, earlier: Interactions, item_I: IntArray, champion: artefact.Model | None, p: Hyperparameters
) -> tuple[Sasrec, Feed, str | None]:
    """A net on the champion's weights where they fit, what it will be fed, and the champion's digest or None."""
    index_N = data.index_of(item_I, rows.item_N)
    position_UT = [position_T for _user, position_T in data.sequences(rows)]
    full = [index_N[position_T] for position_T in position_UT]
    fit = full if len(earlier) == len(rows) else [index_N[at_T[at_T < len(earlier)]] for at_T in position_UT]
    if champion is not None and isinstance(champion.predictor, SequenceRanker):
        known_I = torch.from_numpy(data.index_of(champion.predictor.item_I, item_I) >= 0)
        net = warm(champion.predictor, item_I, known_I, fit, p)
        if net is not None:
            parent = str(champion.manifest["weights_sha256"])
            learnt_at = np.datetime64(champion.manifest["data"]["last_at"].removesuffix("Z"), "us").astype(np.int64)
            old = np.searchsorted(rows.time_N, learnt_at, side="right")
            old_U = [int(np.count_nonzero(position_T < old)) for position_T in position_UT]
            say("warm_start", parent=parent[:12], new_items=int((~known_I).sum()), new_rows=len(rows) - int(old))
            return net, Feed(fit=fit, full=full, known_I=known_I, old_U=old_U), parent
    say("cold_start", reason="no usable champion" if champion is None else "the champion has another shape")
    known_I = torch.zeros(len(item_I), dtype=torch.bool)
    return cold(fit, len(item_I), p), Feed(fit=fit, full=full, known_I=known_I), None
