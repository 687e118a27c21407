"""The short convolution that stands before a recurrence: each channel by itself, no later token, no other document."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contracts import documents


def causal_conv(conv: nn.Conv1d, x: Tensor, window: Tensor, positions: Tensor | None) -> tuple[Tensor, Tensor]:
    """A depthwise convolution over the last tokens of the same document; before its first token stand zeros.

    y_t = sum_i w_i * x_{t - taps + 1 + i} + bias

    Cost per token: channels * taps multiply-adds, channels * (taps - 1) numbers of state.
    Args:   conv: as many groups as channels, no padding of its own. window: the last inputs before x, newest last; zeros at the
            start of a text.
    Shape:  x: (batch, seq, channels), window: (batch, channels, taps - 1), positions: (batch, seq) -> y, the next window
    """
    x, seq, taps = x.mT, x.shape[1], conv.weight.shape[2]
    x = torch.cat((window.to(x.dtype), x), dim=2)  # (b, channels, taps - 1 + s)
    if positions is None:
        # torch.vmap takes a convolution apart before autocast gets to see it.
        bias = None if conv.bias is None else conv.bias.to(x.dtype)
        return F.conv1d(x, conv.weight.to(x.dtype), bias, groups=conv.groups).mT, x[..., seq:].to(window.dtype)
    document = F.pad(documents(positions), (taps - 1, 0))[:, None]  # what the window still holds belongs to document 0
    own = document[..., taps - 1 :]
    y = torch.zeros_like(x[..., :seq])
    for tap, weight in enumerate(conv.weight[:, 0, :, None].unbind(1)):
        y = y + weight * x[..., tap : tap + seq].where(document[..., tap : tap + seq] == own, 0)
    y = y if conv.bias is None else y + conv.bias[:, None]
    return y.mT, x[..., seq:].where(document[..., seq:] == own[..., -1:], 0).to(window.dtype)
