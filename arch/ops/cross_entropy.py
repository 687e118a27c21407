"""The cross-entropy of logits that are never written out all at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .linear import linear
from .seeds import stacked

PIECE = 2**24  # logits that are there at a time: 64 MiB in fp32


def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *, ignore_index: int) -> Tensor:
    """Cross-entropy of the logits x W^T + b, summed over the targets, in fp32.

    sum_t  log sum_v exp(z_tv) - z_t,target(t),   z = x W^T + b

    Where there are more logits than ``PIECE`` they are made piece by piece, and so are their gradients, in the forward pass:
    that of a plain sum is known there but for one factor.

    Paper: Wijmans 2024, arXiv:2411.09009 (section 4). Differs: pieces are whole rows of logits, and none is computed twice.
    Args:   targets: classes, or ignore_index where there is none.
    Shape:  x: (n, d), weight: (classes, d), bias: (classes,), targets: (n,) -> ()
    """
    if len(x) * len(weight) <= PIECE or stacked():  # also the plain twin of what follows
        return F.cross_entropy(linear(x, weight, bias).float(), targets, ignore_index=ignore_index, reduction="sum")
    loss: Tensor = LinearCrossEntropy.apply(x, weight, bias, targets, ignore_index)
    return loss


def in_pieces(x: Tensor, weight: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of x and of the targets, so many at a time that their logits are a piece."""
    rows = max(1, PIECE // len(weight))
    return zip(x.split(rows), targets.split(rows), strict=True)


class LinearCrossEntropy(torch.autograd.Function):
    """``linear_cross_entropy`` by pieces, with the gradients of x, weight and bias."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, ignore_index: int) -> Tensor:
        learns = any(ctx.needs_input_grad)
        loss = torch.zeros((), device=x.device)
        to_x: list[Tensor] = []
        to_weight = torch.zeros_like(weight, dtype=torch.float32)
        to_bias = torch.zeros(len(weight), device=x.device)
        for rows, wanted in in_pieces(x, weight, targets):
            product = linear(rows, weight, bias)
            logits, dtype = product.float(), product.dtype
            log_z = logits.logsumexp(-1, keepdim=True)
            present = (wanted != ignore_index).unsqueeze(-1)  # (rows, 1)
            target = wanted.unsqueeze(-1).where(present, 0)
            loss += ((log_z - logits.gather(-1, target)) * present).sum()
            if learns:
                to_logits = logits.sub_(log_z).exp_()
                to_logits.scatter_add_(-1, target, torch.full_like(log_z, -1)).mul_(present)
                to_x.append(linear(to_logits.to(dtype), weight.to(dtype).mT).to(x.dtype))
                to_weight += linear(to_logits.to(dtype).mT, rows.to(dtype).mT)
                to_bias += to_logits.sum(0)
        if learns:
            found = (torch.cat(to_x), to_weight, to_bias)
            ctx.save_for_backward(*(t if n else None for t, n in zip(found, ctx.needs_input_grad[:3], strict=True)))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if t is None else t * grad for t in ctx.saved_tensors), None, None
