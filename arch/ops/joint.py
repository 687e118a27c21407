"""Attention to several sets of keys as one softmax.

What each set gives alone is a mean under its own normaliser Z_i, so the whole is the mean of these: y = sum_i (Z_i / Z) y_i.
Backwards a set needs no more than the y and the Z of the whole: the weights that count are exp(score) / Z.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

HIDDEN = -1e30  # of a pair that is not seen. Finite: a query that sees nothing of one set has a Z there, of next to nothing


def has_joint_kernel(device: torch.device) -> bool:
    """Whether torch has a fused attention for this device that takes a mask and tells log Z."""
    return device.type == "cpu"


def attend_jointly(
    sets: Sequence[tuple[Tensor, Tensor, Tensor]],
    masks: Sequence[Tensor],
    *,
    scale: float,
    cut: Sequence[Callable[[Tensor], Tensor]],
    whole: Sequence[Callable[[Tensor], Tensor]],
) -> Tensor:
    """softmax over all sets of (scale * q k^T + mask), times v.

    Paper: Dao 2022, arXiv:2205.14135 (section 3.1, softmax by pieces); Liu 2023, arXiv:2310.01889 (backwards). Differs: the
    sets of a query need not be pieces of one text.
    Args:   sets: queries, keys and values of each; every query stands once in each set. masks: boolean, true = seen, or
            numbers to add to the score, without a gradient. cut: from the queries' order to a set's; whole: back.
    Shape:  q: (b_i, h, q_i, d), k, v: (b_i, g, k_i, d), mask: (b_i, 1 or h, q_i, k_i); in the queries' order: (b, h, s, d)
    """
    numbers = [added(mask, q.dtype) for mask, (q, _, _) in zip(masks, sets, strict=True)]
    y: Tensor = Joint.apply(numbers, scale, cut, whole, *(t for one in sets for t in one))
    return y


def added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as finite numbers to add to the score."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, HIDDEN)
    return mask.detach().to(dtype).clamp(min=HIDDEN)


class Joint(torch.autograd.Function):
    """``attend_jointly`` with the gradients of queries, keys and values."""

    @staticmethod
    def forward(ctx: Any, masks: list[Tensor], scale: float, cut: Any, whole: Any, *tensors: Tensor) -> Tensor:
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        ys, logs = [], []
        for back, mask, one in zip(whole, masks, by_three(tensors), strict=True):
            y, log_z = attend(*one, 0.0, False, attn_mask=mask, scale=scale)  # no dropout, not causal but by the mask
            ys.append(back(y))
            logs.append(back(log_z.unsqueeze(-1)))  # (b, h, s, 1)
        log_z = torch.stack(logs).logsumexp(0)
        y = sum(y * (log - log_z).exp().to(y.dtype) for y, log in zip(ys, logs, strict=True))
        ctx.save_for_backward(y, log_z, *masks, *tensors)
        ctx.scale, ctx.cut = scale, cut
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, log_z, *others = ctx.saved_tensors
        masks, tensors = others[: len(ctx.cut)], others[len(ctx.cut) :]
        gradients = []
        for cut, mask, one in zip(ctx.cut, masks, by_three(tensors), strict=True):
            of_set = (cut(t).contiguous() for t in (grad, y, log_z))
            from_y, its_y, its_log_z = of_set
            gradients += torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                from_y, *one, its_y, its_log_z.squeeze(-1), 0.0, False, attn_mask=mask, scale=ctx.scale
            )
        return None, None, None, None, *gradients


def by_three(tensors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    return [tensors[i : i + 3] for i in range(0, len(tensors), 3)]
