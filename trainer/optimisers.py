"""AdamW, SGD and Muon on plain tensors, fused on CPU and GPU alike: one kernel updates every parameter.

torch.optim imports torch._dynamo at its first step (3.7 CPU s); the kernels under it need nothing. Each class takes
named parameters (several groups: several optimisers), drops the gradients it used, and keeps all its state in tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

Named = Iterable[tuple[str, nn.Parameter]]


class Optimiser(Protocol):
    def step(self, learning_rate: float) -> None: ...

    def tensors(self) -> dict[str, Tensor]:
        """The state itself, not a copy: a checkpoint is restored by copying into it."""


class AdamW:
    """Loshchilov and Hutter, ICLR 2019."""

    def __init__(
        self, named: Named, *, weight_decay: float = 0.01, beta1: float = 0.9, beta2: float = 0.98, eps: float = 1e-8
    ) -> None:
        self.names, self.parameters = _split(named)
        self.weight_decay, self.beta1, self.beta2, self.eps = weight_decay, beta1, beta2, eps
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.steps = torch.zeros((), device=self.parameters[0].device)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        self.steps += 1
        torch._fused_adamw_(
            self.parameters,
            _taken_gradients(self.parameters),
            self.first,
            self.second,
            [],
            [self.steps] * len(self.parameters),
            lr=learning_rate,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=self.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=False,
        )

    def tensors(self) -> dict[str, Tensor]:
        return {
            "steps": self.steps,
            **_named("first", self.names, self.first),
            **_named("second", self.names, self.second),
        }


class SGD:
    """Nesterov's momentum as in Sutskever et al., ICML 2013; the weight decay is added to the gradient."""

    def __init__(
        self, named: Named, *, momentum: float = 0.9, weight_decay: float = 0.0, nesterov: bool = True
    ) -> None:
        self.names, self.parameters = _split(named)
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.velocity = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        torch._fused_sgd_(
            self.parameters,
            _taken_gradients(self.parameters),
            self.velocity,
            lr=learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            dampening=0.0,
            nesterov=self.nesterov,
            maximize=False,
            is_first_step=False,  # a velocity of zeros makes the first step like any other
        )

    def tensors(self) -> dict[str, Tensor]:
        return _named("velocity", self.names, self.velocity)


class Muon:
    """Momentum, orthogonalised: Jordan et al., "Muon", 2024, as in airbench94_muon. For matrices and filters only.

    Every filter bank is first scaled to a norm of sqrt(its filters), so ``learning_rate`` is relative to the weights.
    """

    def __init__(self, named: Named, *, momentum: float = 0.6, iterations: int = 3) -> None:
        self.names, self.parameters = _split(named)
        if any(p.ndim < 2 for p in self.parameters):
            raise ValueError("Muon is for matrices and filters; give vectors to SGD or AdamW")
        self.momentum, self.iterations = momentum, iterations
        self.velocity = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        for p, g, v in zip(self.parameters, _taken_gradients(self.parameters), self.velocity, strict=True):
            v.mul_(self.momentum).add_(g)
            update = orthogonalised(g.add(v, alpha=self.momentum).reshape(len(g), -1), self.iterations)
            p.mul_(len(p) ** 0.5 / p.norm())
            p.add_(update.reshape(p.shape), alpha=-learning_rate)

    def tensors(self) -> dict[str, Tensor]:
        return _named("velocity", self.names, self.velocity)


def orthogonalised(g_MN: Tensor, iterations: int) -> Tensor:
    """About U V^T of g = U S V^T: singular values end between 0.7 and 1.2 (Newton-Schulz, Jordan's coefficients)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g_MN.bfloat16() if g_MN.is_cuda else g_MN
    wide = x if len(x) <= x.shape[1] else x.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(iterations):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    result_MN: Tensor = wide if len(x) <= x.shape[1] else wide.T
    return result_MN.to(g_MN.dtype)


def _split(named: Named) -> tuple[list[str], list[Tensor]]:
    pairs = list(named)
    return [name for name, _ in pairs], [parameter for _, parameter in pairs]


def _taken_gradients(parameters: list[Tensor]) -> list[Tensor]:
    gradients: list[Tensor] = []
    for parameter in parameters:
        assert parameter.grad is not None, "a parameter took no part in the loss"
        gradients.append(parameter.grad)
        parameter.grad = None
    return gradients


def _named(kind: str, names: list[str], values: list[Tensor]) -> dict[str, Tensor]:
    return {f"{kind}.{name}": value for name, value in zip(names, values, strict=True)}
