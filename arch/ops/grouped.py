"""Products of rows that are sorted by expert with a bank of matrices, one per expert, on a device that nobody may wait for.

Hopper and later in bf16: torch's grouped_mm. Anything else: blocks of equal size and a few batched products. Their shapes
depend on the number of rows alone, not on where the rows go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.compiler import is_compiling

_grouped_mm: Any = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)  # public since torch 2.10


def grouped_matmul(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """Multiply each row by the matrix of its expert; the rows of expert 0 come first, then those of expert 1, and so on.

    y_i = weight_e x_i   for the counts_e rows i of expert e;   y_i = 0 for the rows after those of the last expert

    Cost per row: d_in * d_out multiply-adds. The gradient of an expert without rows is zero.
    Args:   counts: rows of each expert, on the device of x.
    Shape:  x: (rows, d_in), weight: (experts, d_out, d_in), counts: (experts,) integers -> (rows, d_out)
    """
    return native(x, weight, counts) if has_native(x, weight) else blocked(x, weight, counts)


def has_native(x: Tensor, weight: Tensor) -> bool:
    """Whether grouped_mm takes these: bf16 in rows of whole 16 bytes. Before Hopper it is a loop that waits for the device."""
    aligned = weight.shape[1] % 8 == 0 and weight.shape[2] % 8 == 0
    bf16 = x.dtype == weight.dtype == torch.bfloat16
    hopper = x.is_cuda and torch.version.cuda is not None and torch.cuda.get_device_properties(x.device).major >= 9
    return _grouped_mm is not None and bf16 and aligned and hopper


def native(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    ends = counts.cumsum(0, dtype=torch.int32)
    served = (torch.arange(x.shape[0], device=x.device) < ends[-1]).unsqueeze(-1)
    # Past the last group grouped_mm leaves whatever the memory held, in y and in the gradient of x: one mask for each.
    # The outer one also hands a materialised gradient to its backward, which refuses an expanded one.
    return torch.where(served, _grouped_mm(torch.where(served, x, 0), weight.mT, offs=ends), 0)


def blocked(x: Tensor, weight: Tensor, counts: Tensor, size: int | None = None) -> Tensor:
    """Give every expert whole blocks of ``size`` rows, filled up with zeros: at most one block per expert is wasted."""
    apply = product_operator if is_compiling() else Blocked.apply
    y: Tensor = apply(x, weight, counts, block_size(len(x), len(weight)) if size is None else size)
    return y


def block_size(rows: int, experts: int) -> int:
    """A quarter of an even share, so that about an eighth of the work is on zeros, but no less than a product takes at once."""
    return max(128, rows // (4 * experts) // 128 * 128)


class Plan(NamedTuple):
    """Where rows go. A block's expert: (blocks,); each row's place in them, and whether an expert serves it: (rows,)"""

    expert: Tensor
    slot: Tensor
    served: Tensor


def plan(counts: Tensor, rows: int, size: int) -> Plan:
    """On the device: nobody waits for the counts."""
    counts = torch.cat([counts, rows - counts.sum(0, keepdim=True)])  # rows after the last group: an expert of zeros
    experts, ends = len(counts), counts.cumsum(0)
    blocks = (counts + size - 1) // size  # of each expert
    n_blocks = rows // size + experts  # never too few, whatever the counts
    block, row = (torch.arange(n, device=counts.device) for n in (n_blocks, rows))
    expert = torch.searchsorted(blocks.cumsum(0), block, right=True).clamp(max=experts - 2)  # of zeros any will do
    shift = size * (blocks.cumsum(0) - blocks) - (ends - counts)  # of each expert's rows, into its blocks
    of_row = torch.searchsorted(ends, row, right=True)
    return Plan(expert, row + shift.index_select(0, of_row), row < ends[-2])


def in_blocks(x: Tensor, plan: Plan, size: int) -> Tensor:
    """(rows, d) -> (blocks, size, d)"""
    room = x.new_zeros(len(plan.expert) * size, x.shape[1])
    return room.index_copy_(0, plan.slot, torch.where(plan.served.unsqueeze(-1), x, 0)).unflatten(0, (-1, size))


def by_blocks(x: Tensor, weight: Tensor, plan: Plan, size: int) -> Tensor:
    """weight: (experts, d_in, d_out). So many blocks at a time that their matrices take no more than the bank."""
    pieces = zip(in_blocks(x, plan, size).split(len(weight)), plan.expert.split(len(weight)), strict=True)
    y = torch.cat([torch.bmm(piece, weight.index_select(0, expert)) for piece, expert in pieces])
    return y.flatten(0, 1).index_select(0, plan.slot)


def product(x: Tensor, weight: Tensor, counts: Tensor, size: int) -> Tensor:
    return by_blocks(x, weight.mT, plan(counts, len(x), size), size)


def gradients(grad: Tensor, x: Tensor, weight: Tensor, counts: Tensor, size: int, learns: bool) -> list[Tensor]:
    """Of x and, if learns, of the bank. Plan and blocks are made anew: kept is what came in, and no matrix twice."""
    made = plan(counts, len(x), size)
    to_x = by_blocks(grad, weight, made, size)
    if not learns:
        return [to_x]
    to_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
    blocks = (in_blocks(t, made, size).split(len(weight)) for t in (grad, x))
    for of_grad, of_x, expert in zip(*blocks, made.expert.split(len(weight)), strict=True):
        to_weight.index_add_(0, expert, torch.bmm(of_grad.mT, of_x).to(to_weight.dtype))
    return [to_x, to_weight.to(weight.dtype)]


def backward_by(gradients: Callable[..., list[Tensor]]) -> Callable[..., tuple[Tensor | None, ...]]:
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        learns = ctx.needs_input_grad[1]
        to_x, *to_weight = gradients(grad, *ctx.saved_tensors, ctx.size, learns)
        return to_x, to_weight[0] if learns else None, None, None

    return backward


def save_for_backward(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.size = inputs[3]


class Blocked(torch.autograd.Function):
    """``blocked`` with its gradients."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, counts: Tensor, size: int) -> Tensor:
        return product(x, weight, counts, size)

    setup_context = staticmethod(save_for_backward)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return backward_by(gradients)(ctx, grad)


# For torch.compile, to which a Function's context is a class that it warns of.
_OPERATORS = __name__.replace(".", "_")  # a copy of this package under another name registers its own
product_operator = torch.library.custom_op(f"{_OPERATORS}::blocked", product, mutates_args=())
gradients_operator = torch.library.custom_op(f"{_OPERATORS}::blocked_gradients", gradients, mutates_args=())
product_operator.register_fake(lambda x, weight, counts, size: x.new_empty(len(x), weight.shape[1]))
gradients_operator.register_fake(
    lambda grad, x, weight, counts, size, learns: [torch.empty_like(t) for t in (x, *((weight,) if learns else ()))]
)
product_operator.register_autograd(backward_by(gradients_operator), setup_context=save_for_backward)
