"""Products of rows that are sorted by expert with a bank of matrices, one per expert, on a device that nobody may wait for.

Hopper and later in bf16: torch's grouped_mm. Anything else: blocks of equal size and one batched product. Their shapes depend
on the number of rows alone, not on where the rows go.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

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


def blocked(x: Tensor, weight: Tensor, counts: Tensor, size: int = 128) -> Tensor:
    """Give every expert whole blocks of ``size`` rows, filled up with zeros: at most one block per expert is wasted."""
    rows, experts = x.shape[0], counts.shape[0] + 1
    counts = torch.cat([counts, rows - counts.sum(0, keepdim=True)])  # rows after the last group: an expert of zeros
    weight = F.pad(weight, (0, 0, 0, 0, 0, 1))
    blocks = (counts + size - 1) // size  # of each expert
    n_blocks = rows // size + experts  # never too few, whatever the counts
    block, row = (torch.arange(n, device=x.device) for n in (n_blocks, rows))
    expert = torch.searchsorted(blocks.cumsum(0), block, right=True).clamp(max=experts - 1)  # of each block
    shift = size * (blocks.cumsum(0) - blocks) - (counts.cumsum(0) - counts)  # of each expert's rows, into its blocks
    slot = row + shift[torch.searchsorted(counts.cumsum(0), row, right=True)]  # of each row

    filled = x.new_zeros(n_blocks * size, x.shape[1]).index_copy(0, slot, x)
    filled = rearrange(filled, "(block row) d -> block row d", row=size)
    y = torch.bmm(filled, weight.index_select(0, expert).mT)  # (blocks, size, d_out)
    return rearrange(y, "block row d -> (block row) d").index_select(0, slot)
