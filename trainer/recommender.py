"""A causal transformer that names the next item: SASRec's shape, a softmax over items, and a spectral start.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018; the softmax instead of one negative an item
follows Klenitskiy and Vasilev, RecSys 2023 (nDCG@10 .108 -> .178 on ML-1M). What makes it learn in seconds on a CPU is
the start: item embeddings are the leading eigenvectors of the items' positive pointwise mutual information within
five steps (Levy and Goldberg, NIPS 2014), and the residual branches begin at zero, so the untrained
network already says what goes with the last items. Figures, times and machine: README.md.

Shapes: I items, L window, D dimension, H heads, B windows, M predicted positions of a batch, C candidate items.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name the whole field uses
from torch import Tensor, nn

from trainer.contract import DivergedError, setting
from trainer.data import FloatArray, IntArray

SPECTRAL_STEPS = 5  # two items co-occur when at most so many steps apart, weighted by 1 / distance
SPECTRAL_INTERACTIONS_MAX = 5_000_000  # the newest; bounds memory at about 1 GB
WARMUP_STEPS = 20
DIVERGED_FACTOR = 3.0  # a loss beyond so many times that of a uniform guess


@dataclass(frozen=True, slots=True, kw_only=True)
class SasrecHyperparameters:
    model: str = setting("sasrec", choices=("sasrec",))
    generation: int = setting(0, low=0)
    seed: int = setting(0, low=0)
    epochs: int = setting(3, low=1, high=10_000)
    epochs_warm: int = setting(2, low=1, high=10_000)  # after a warm start from the champion
    patience: int = setting(3, low=1)  # epochs without a better validation before the last one, over all rows, begins
    warm_start: str = setting("auto", choices=("auto", "never"))
    dimension: int = setting(64, low=2, high=4096)
    window: int = setting(64, low=2, high=4096)
    heads: int = setting(2, low=1, high=64)
    blocks: int = setting(1, low=1, high=48)
    dropout: float = setting(0.2, low=0.0, high=0.9)
    learning_rate: float = setting(4e-3, low=0.0, high=1e6)
    weight_decay: float = setting(0.01, low=0.0, high=1.0)
    batch_windows: int = setting(8, low=1, high=65_536)
    negatives: int = setting(256, low=1, high=1_000_000)
    softmax_items_max: int = setting(1000, low=0)  # a larger catalogue is sampled: full softmax costs 3x here
    spectral_scale: float = setting(0.5, low=0.0, high=10.0)  # 0: random embeddings
    renewal: float = setting(0.5, low=0.0, high=1.0)  # how far a warm start moves known items, see renew()
    validation_share: float = setting(0.05, low=0.0, high=0.5)
    checkpoint_seconds: float = setting(60.0, low=0.0)


# ---- the network


class Block(nn.Module):
    def __init__(self, D: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, 2 * D), nn.Linear(2 * D, D)
        for branch_end in (self.out, self.down):
            nn.init.zeros_(branch_end.weight)
            nn.init.zeros_(branch_end.bias)

    def forward(self, x_BLD: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        q, k, v = self.qkv(self.norm1(x_BLD)).view(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        mixed_BHLK = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed_BLD = mixed_BHLK.transpose(1, 2).reshape(B, L, D)
        x_BLD = x_BLD + F.dropout(self.out(mixed_BLD), self.dropout, self.training)
        inner_BLF = F.relu(self.up(self.norm2(x_BLD)))
        return x_BLD + F.dropout(self.down(inner_BLF), self.dropout, self.training)


class Sasrec(nn.Module):
    """Maps item indices to hidden states; the score of item i is ``hidden . item_embedding[i] + item_bias[i]``."""

    def __init__(self, items: int, p: SasrecHyperparameters) -> None:
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


def co_occurrence(sequences: list[IntArray], items: int) -> Tensor:
    """Symmetric sparse counts of items within SPECTRAL_STEPS of each other, weighted by 1 / distance."""
    left, right, weight = [], [], []
    budget = SPECTRAL_INTERACTIONS_MAX
    for index_T in sequences:
        recent_T = index_T[-max(budget, 0) :] if budget > 0 else index_T[:0]
        budget -= len(recent_T)
        for distance in range(1, min(SPECTRAL_STEPS, len(recent_T) - 1) + 1):
            left.append(recent_T[:-distance])
            right.append(recent_T[distance:])
            weight.append(np.full(len(recent_T) - distance, 1.0 / distance, dtype=np.float32))
    if not left:
        return _sparse(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0), items)
    a, b, w = np.concatenate(left), np.concatenate(right), np.concatenate(weight)
    return _sparse(torch.from_numpy(np.stack([np.r_[a, b], np.r_[b, a]])), torch.from_numpy(np.r_[w, w]), items)


def _sparse(place: Tensor, value: Tensor, items: int) -> Tensor:
    return torch.sparse_coo_tensor(place, value, (items, items), check_invariants=False).coalesce()


def spectral_embedding(count_II: Tensor, dimension: int, scale: float, seed: int) -> Tensor | None:
    """Leading eigenvectors of the positive PMI by randomised SVD (Halko et al. 2011); None for too few items."""
    items = count_II.shape[0]
    if items <= dimension + 10 or count_II._nnz() == 0:
        return None
    total_I = torch.sparse.sum(count_II, dim=1).to_dense() + 1e-9
    context_I = total_I**0.75 / (total_I**0.75).sum()
    place, count = count_II.indices(), count_II.values()
    pmi = torch.log(count / (total_I[place[0]] * context_I[place[1]])).clamp_min(0)
    pmi_II = _sparse(place, pmi, items)
    flipped_II = pmi_II.t().coalesce()
    basis_IK = torch.randn(items, dimension + 10, generator=torch.Generator().manual_seed(seed))
    for _ in range(2):
        basis_IK = torch.linalg.qr(torch.sparse.mm(pmi_II, torch.sparse.mm(flipped_II, basis_IK)))[0]
    u_KK, s_K, _ = torch.linalg.svd(torch.sparse.mm(flipped_II, basis_IK).T, full_matrices=False)
    vector_ID = (basis_IK @ u_KK)[:, :dimension] * s_K[:dimension].sqrt()
    scaled_ID: Tensor = vector_ID * (scale / vector_ID.square().sum(1).mean().sqrt())
    return scaled_ID


def cold(fit: list[IntArray], items: int, p: SasrecHyperparameters) -> Sasrec:
    """Starts from ``fit`` alone: a start that had seen the validation rows would make the selection worthless."""
    torch.manual_seed(p.seed)
    net = Sasrec(items, p)
    share_I = torch.from_numpy(np.bincount(np.concatenate(fit), minlength=items)).float()
    bias_I = torch.log(share_I / share_I.sum() + 1e-5)
    net.item_bias.data = bias_I - bias_I.mean()
    if p.spectral_scale > 0:
        vector_ID = spectral_embedding(co_occurrence(fit, items), p.dimension, p.spectral_scale, p.seed)
        if vector_ID is not None:
            net.item_embedding.data = vector_ID.contiguous()
    return net


def warm(
    champion: Mapping[str, npt.NDArray[Any]],
    champion_item_I: IntArray,
    item_I: IntArray,
    fit: list[IntArray],
    p: SasrecHyperparameters,
) -> Sasrec | None:
    """The champion's weights with rows for the new items, or None when the shapes do not fit."""
    torch.manual_seed(p.seed)
    net = Sasrec(len(item_I), p)
    state = net.state_dict()
    grown = {"item_embedding": (len(champion_item_I), p.dimension), "item_bias": (len(champion_item_I),)}
    expected = {name: tuple(t.shape) for name, t in state.items()} | grown
    if {name: array.shape for name, array in champion.items()} != expected:
        return None
    place_I = np.searchsorted(champion_item_I, item_I).clip(max=len(champion_item_I) - 1)
    known_I = torch.from_numpy(champion_item_I[place_I] == item_I)
    for name in state:
        array = champion[name][place_I] if name in grown else champion[name]
        state[name].copy_(torch.from_numpy(np.array(array)))
    renew(net, known_I, fit, p)
    return net


@torch.no_grad()
def renew(net: Sasrec, known_I: Tensor, sequences: list[IntArray], p: SasrecHyperparameters) -> None:
    """Gives new items their spectral embedding, and moves known ones ``renewal`` of the way to theirs.

    Eigenvectors of new data equal the old ones only up to a rotation, so they are first turned onto the known ones
    (orthogonal Procrustes, Schoenemann 1966). Without the renewal a warm start stays at 65 % of a cold one's nDCG.
    """
    known_I = known_I.to(net.item_bias.device)
    if not bool(known_I.any()):
        return
    net.item_bias.copy_(torch.where(known_I, net.item_bias, net.item_bias[known_I].quantile(0.1)))
    vector_ID = spectral_embedding(co_occurrence(sequences, len(known_I)), p.dimension, p.spectral_scale, p.seed)
    if vector_ID is not None:
        vector_ID = vector_ID.to(known_I.device)
        u_DD, _, v_DD = torch.linalg.svd(vector_ID[known_I].T @ net.item_embedding[known_I])
        turned_ID = vector_ID @ (u_DD @ v_DD)
        kept_ID = torch.lerp(net.item_embedding, turned_ID, p.renewal)
        net.item_embedding.copy_(torch.where(known_I[:, None], kept_ID, turned_ID))


# ---- what it is fed


def windows(sequences: list[IntArray], L: int, padding: int, draws: np.random.Generator) -> IntArray:
    """Every sequence cut at random into pieces of at most L + 1 items that share their ends; rows shuffled."""
    pieces = []
    for index_T in sequences:
        steps = len(index_T) - 1
        if steps < 1:
            continue
        cuts = np.arange(draws.integers(1, L + 1), steps, L) if steps > L else np.zeros(0, dtype=np.int64)
        for begin, end in zip(np.r_[0, cuts], np.r_[cuts, steps], strict=True):
            piece_L = np.full(L + 1, padding, dtype=np.int64)
            piece_L[: end - begin + 1] = index_T[begin : end + 1]
            pieces.append(piece_L)
    if not pieces:
        return np.zeros((0, L + 1), dtype=np.int64)
    return np.stack(pieces)[draws.permutation(len(pieces))]


# ---- how it learns


class AdamW:
    """Loshchilov and Hutter 2019, on plain tensors: torch.optim imports torch._dynamo at its first step (3.7 CPU s)."""

    def __init__(self, net: nn.Module, weight_decay: float) -> None:
        self.names, self.parameters = zip(*net.named_parameters(), strict=True)
        self.weight_decay = weight_decay
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self, learning_rate: float, beta1: float = 0.9, beta2: float = 0.98) -> None:
        self.steps += 1
        for p, m, v in zip(self.parameters, self.first, self.second, strict=True):
            p.mul_(1 - learning_rate * self.weight_decay)
            m.lerp_(p.grad, 1 - beta1)
            v.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            size = v.sqrt().div_(math.sqrt(1 - beta2**self.steps)).add_(1e-8)
            p.addcdiv_(m, size, value=-learning_rate / (1 - beta1**self.steps))
            p.grad = None

    def tensors(self) -> dict[str, Tensor]:
        both = {"first": self.first, "second": self.second}
        return {f"{kind}.{name}": t for kind, ts in both.items() for name, t in zip(self.names, ts, strict=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What is learnt from: ``fit`` is ``full`` without the validation rows, user by user."""

    fit: list[IntArray]
    full: list[IntArray]
    items: int


def _log_q(sequences: list[IntArray], items: int, p: SasrecHyperparameters) -> FloatArray:
    """The log of the probability that an item is among a batch's candidates: its targets and uniform negatives."""
    if items <= p.softmax_items_max:
        return np.zeros(items, dtype=np.float32)
    share_I = np.bincount(np.concatenate(sequences), minlength=items) / sum(map(len, sequences))
    missed_I = (1 - share_I) ** (p.batch_windows * p.window) * max(0.0, 1 - 1 / items) ** p.negatives
    return np.log(1 - missed_I).astype(np.float32)


@dataclass(slots=True, kw_only=True)
class Progress:
    """The cursor and the selection so far; with the tensors, all that a checkpoint has to keep."""

    epoch: int = 0
    step: int = 0
    optimiser_steps: int = 0
    best: float = -1.0
    best_epoch: int = -1
    loss: float = math.nan


Validate = Callable[[dict[str, npt.NDArray[Any]]], float | None]


class Trainer:
    """``run`` trains until the end or until told to stop; ``tensors`` and ``progress`` are a checkpoint at any step."""

    def __init__(self, net: Sasrec, feed: Feed, p: SasrecHyperparameters, *, epochs: int, known_I: Tensor) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.net, self.feed, self.p = net.to(self.device), feed, p
        self.epochs = epochs
        self.known_I = known_I  # items the start already placed well: those of the champion
        self.forward = torch.compile(self.net) if self.device.type == "cuda" else self.net
        self.optimiser = AdamW(self.net, p.weight_decay)
        self.best = {name: t.clone() for name, t in self.net.state_dict().items()}
        self.log_q_I = torch.from_numpy(_log_q(feed.full, feed.items, p)).to(self.device)
        self.progress = Progress()

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        return {name: t.detach().float().cpu().numpy().copy() for name, t in self.net.state_dict().items()}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        groups = {"net": self.net.state_dict(), "best": self.best, "adam": self.optimiser.tensors()}
        return {f"{g}.{name}": t.detach().cpu().numpy().copy() for g, ts in groups.items() for name, t in ts.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, npt.NDArray[Any]], progress: Progress) -> None:
        groups = {"net": self.net.state_dict(), "best": self.best, "adam": self.optimiser.tensors()}
        for group, ts in groups.items():
            for name, t in ts.items():
                t.copy_(torch.from_numpy(tensors[f"{group}.{name}"]))
        self.progress = progress
        self.optimiser.steps = progress.optimiser_steps

    def run(self, validate: Validate, between_steps: Callable[[], bool], after_epoch: Callable[[float], None]) -> bool:
        """True when trained to the end, False when ``between_steps`` answered True; ``after_epoch`` gets seconds.

        The last epoch is over all rows, the validation rows too: the newest rows are what a retraining is for.
        """
        at = self.progress
        while at.epoch < self.epochs:
            began = time.perf_counter()
            last = at.epoch == self.epochs - 1
            if last and at.step == 0 and self.feed.fit is not self.feed.full:
                in_fit_I = np.bincount(np.concatenate(self.feed.fit), minlength=self.feed.items) > 0
                renew(self.net, torch.from_numpy(in_fit_I) | self.known_I, self.feed.full, self.p)
            if not self._epoch(self.feed.full if last else self.feed.fit, between_steps):
                return False
            exhausted = not last and self._patience_is_exhausted(validate(self.weights()))
            if exhausted:
                self.net.load_state_dict(self.best)
            at.epoch, at.step = self.epochs - 1 if exhausted else at.epoch + 1, 0
            after_epoch(time.perf_counter() - began)
        return True

    def _patience_is_exhausted(self, metric: float | None) -> bool:
        at = self.progress
        if metric is None:
            return False
        if metric > at.best:
            self.best = {name: t.clone() for name, t in self.net.state_dict().items()}
            at.best, at.best_epoch = metric, at.epoch
        return at.epoch - at.best_epoch >= self.p.patience

    def _epoch(self, sequences: list[IntArray], between_steps: Callable[[], bool]) -> bool:
        """The rest of the epoch at the cursor; the learning rate falls linearly over all epochs."""
        at = self.progress
        window_BL = windows(sequences, self.p.window, self.feed.items, np.random.default_rng([self.p.seed, at.epoch]))
        steps = math.ceil(len(window_BL) / self.p.batch_windows)
        self.net.train()
        for step in range(at.step, steps):
            if between_steps():
                return False
            left = 1 - (at.epoch + step / steps) / self.epochs
            rate = self.p.learning_rate * min(1.0, (self.optimiser.steps + 1) / WARMUP_STEPS) * max(0.05, left)
            batch = window_BL[step * self.p.batch_windows : (step + 1) * self.p.batch_windows]
            loss = self._step(torch.from_numpy(batch), rate)
            at.step, at.optimiser_steps = step + 1, self.optimiser.steps
            if step + 1 == steps or self.device.type == "cpu" or step % 50 == 0:
                self._check(float(loss))
        return True

    def _step(self, window_BL: Tensor, learning_rate: float) -> Tensor:
        at = self.progress
        seed = int(np.random.SeedSequence([self.p.seed, at.epoch, at.step]).generate_state(1)[0])
        # Dropout and negatives are a function of (seed, epoch, step), so a resume draws the same. torch.manual_seed
        # would format a stack trace at each call where there is no GPU.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        negative_C = torch.randint(self.feed.items, (self.p.negatives,)).to(self.device)
        window_BL = window_BL.to(self.device)
        input_BL, target_BL = window_BL[:, :-1], window_BL[:, 1:]
        real_BL = target_BL != self.feed.items
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            hidden_BLD = self.forward(torch.where(input_BL == self.feed.items, 0, input_BL))
            loss = self._loss(hidden_BLD[real_BL], target_BL[real_BL], negative_C)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step(learning_rate)
        return loss.detach()

    def _loss(self, hidden_MD: Tensor, target_M: Tensor, negative_C: Tensor) -> Tensor:
        net = self.net
        if self.feed.items <= self.p.softmax_items_max:
            return F.cross_entropy((hidden_MD @ net.item_embedding.T + net.item_bias).float(), target_M)
        candidate_C = torch.unique(torch.cat([target_M, negative_C]))
        bias_C = net.item_bias[candidate_C] - self.log_q_I[candidate_C]
        logit_MC = hidden_MD @ net.item_embedding[candidate_C].T + bias_C
        return F.cross_entropy(logit_MC.float(), torch.searchsorted(candidate_C, target_M))

    def _check(self, loss: float) -> None:
        self.progress.loss = loss
        if not math.isfinite(loss) or loss > DIVERGED_FACTOR * math.log(self.feed.items + 1) + 1:
            at = f"epoch {self.progress.epoch}, step {self.progress.step}"
            raise DivergedError(f"the loss is {loss} at {at}; give a learning_rate below {self.p.learning_rate}")
