"""Optimisers, built for a model: which parameter is updated how.

Parameters fall into three kinds: hidden matrices (expert banks are stacks of them), embeddings, and the rest (norms, biases).
What is frozen belongs to none of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from arch.contracts import Position

ANSWERS = re.compile(r"(^|\.)lm_head\.|^heads\.[^.]+\.weight$")  # a head with parts of its own hides matrices inside


class Optimiser(Protocol):
    """What training needs of an optimiser. A config names a function that declares to return one."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Sets of parameters, each with its rate, ``lr``, which a schedule changes in place."""
        ...

    def step(self) -> None: ...
    def zero_grad(self) -> None: ...


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Every weight that a matrix product uses, those that answer left out: no table (of tokens, places or distances), no
    convolution, nothing that its module calls ``undecayed``, no linear map to tokens or classes."""
    tables = {id(p) for m in model.modules() if isinstance(m, (nn.Embedding, Position, nn.Conv1d)) for p in m.parameters()}
    tables |= {id(getattr(m, name)) for m in model.modules() for name in getattr(m, "undecayed", ())}
    tables |= {id(p) for name, p in model.named_parameters() if ANSWERS.search(name)}
    return [p for p in model.parameters() if p.requires_grad and p.dim() >= 2 and id(p) not in tables]


def adamw(model: nn.Module, *, lr: float, betas: Sequence[float], weight_decay: float) -> Optimiser:
    """AdamW over one fused kernel; only hidden matrices decay. Paper: Loshchilov 2019, arXiv:1711.05101."""
    matrices, rest = _split(model, lr, betas, weight_decay)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return AdamW([g for g in groups if g["params"]], lr=lr, betas=(betas[0], betas[1]), fused=True)


def muon(model: nn.Module, *, lr: float, betas: Sequence[float], momentum: float, weight_decay: float) -> Optimiser:
    """Muon for the hidden matrices, AdamW for everything else."""
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum={momentum}: from 0 to below 1 is needed")
    matrices, rest = _split(model, lr, betas, weight_decay)
    both: list[Optimizer] = []
    if matrices:
        both.append(Muon(matrices, lr=lr, momentum=momentum, weight_decay=weight_decay))
    if rest:
        both.append(AdamW(rest, lr=lr, betas=(betas[0], betas[1]), weight_decay=0.0, fused=True))
    return Pair(*both)


def _split(
    model: nn.Module, lr: float, betas: Sequence[float], weight_decay: float
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Hidden matrices and the rest, after a look at the numbers."""
    if lr <= 0 or weight_decay < 0:
        raise ValueError(f"lr={lr} and weight_decay={weight_decay}: more than 0, and at least 0, are needed")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas={list(betas)}: two numbers from 0 to below 1 are needed")
    matrices = hidden_matrices(model)
    chosen = {id(p) for p in matrices}
    return matrices, [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]


class Muon(Optimizer):
    """Momentum whose every update is made orthogonal by five Newton-Schulz steps.

    M <- momentum M + (1 - momentum) G;  U = NS((1 - momentum) G + momentum M);  W <- (1 - lr wd) W - lr s U
    s = 0.2 sqrt(max(rows, columns)), so that an update is as large as AdamW's

    Paper: Jordan 2024 (Muon); scale: Liu 2025, arXiv:2502.16982. Differs: a bank of experts (n, rows, columns) is
        orthogonalised matrix by matrix in one batched product, where torch.optim.Muon takes two axes only.
    Args:   lr: per step. momentum: share of the old direction. weight_decay: per step and unit of lr.
    """

    def __init__(self, params: Iterable[nn.Parameter], *, lr: float, momentum: float = 0.95, weight_decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                average = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalise(p.grad.lerp(average, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(p.shape[-2:])))


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values go to about 1. (..., rows, columns) -> the same."""
    a, b, c = 3.4445, -4.7750, 2.0315  # the quintic that Jordan 2024 tuned: fast from zero, then it hovers around one
    x = g.bfloat16() if g.is_cuda else g.float()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(g.dtype)


class Pair:
    """Two optimisers that step as one."""

    def __init__(self, *optimisers: Optimizer) -> None:
        self.optimisers = optimisers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    def step(self) -> None:
        for optimiser in self.optimisers:
            optimiser.step()

    def zero_grad(self) -> None:
        for optimiser in self.optimisers:
            optimiser.zero_grad()


def parts(optimiser: Optimiser) -> Sequence[Optimizer]:
    """The optimisers proper, in a fixed order."""
    return optimiser.optimisers if isinstance(optimiser, Pair) else (cast(Optimizer, optimiser),)
