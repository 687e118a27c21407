"""What every score keeps, and the attention written out for those that no fused kernel knows."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..ops.seeds import as_rows, stacked


class Score(nn.Module):
    """Weighs the values of the keys that a query sees. Two ways in; attention calls both, in this order."""

    n_heads: int | None = None  # where it tells heads apart, how many there are

    def normalise(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Before the rotation. q: (batch, seq, heads, d_head), k: (batch, seq, kv heads, d_head) -> the same shapes."""
        return q, k

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """After it. q: (b, h, q, d), k and v: (b, g, k, d), g divides h -> (b, h, q, d).

        mask: (1 or b, 1 or h, q, k), boolean (true = seen) or a number to add to the score, -inf = hidden; None = all seen.
        causal: query i sees keys 0..i; only without a mask, for as many keys as queries.
        """
        raise NotImplementedError

    def factor(self, d_head: int) -> float | None:
        """On the dot product, where the score is that and no more: what several sets of keys give can then be joined."""
        return None


def fused(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, causal: bool, scale: float) -> Tensor:
    """softmax(scale * q k^T + mask) v by the device's own kernel; (b, h, q, d), (b, g, k, d) -> (b, h, q, d)."""
    grouped = q.shape[1] != k.shape[1]
    if grouped and mask is not None and q.is_cuda:
        # Its kernel for masks knows no groups, and the fallback writes out every pair.
        k, v = (repeat(t, "b g k d -> b (g h) k d", h=q.shape[1] // k.shape[1]) for t in (k, v))
        grouped = False
    attend = partial(F.scaled_dot_product_attention, is_causal=causal, scale=scale, enable_gqa=grouped)
    if stacked():  # there is no rule for it: it would be called for each model
        y: Tensor = as_rows(attend, q, k, v, mask if mask is None else mask.expand(len(q), -1, -1, -1))
        return y
    return attend(q, k, v, mask)


def products(q: Tensor, k: Tensor) -> Tensor:
    """q k^T with every pair written out, at least in fp32: (b, h, q, d), (b, g, k, d) -> (b, h, q, k)."""
    grouped = rearrange(q, "b (g h) q d -> b g h q d", g=k.shape[1]) @ k.mT.unsqueeze(2)
    return precise(rearrange(grouped, "b g h q k -> b (g h) q k"))


def weighted(scores: Tensor, v: Tensor, *, mask: Tensor | None, causal: bool) -> Tensor:
    """softmax(scores + mask) v with every pair written out: (b, h, q, k), (b, g, k, d) -> (b, h, q, d)."""
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    weights = rearrange(scores.softmax(-1).to(v.dtype), "b (g h) q k -> b g h q k", g=v.shape[1])
    return rearrange(weights @ v.unsqueeze(2), "b g h q d -> b (g h) q d")


def precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def widened(x: Tensor, channel: Tensor) -> Tensor:
    """x (..., d) with one more channel (..., 1), and seven of zeros: fused kernels want widths in eights. -> (..., d + 8)."""
    return F.pad(torch.cat((x, channel.expand(*x.shape[:-1], 1).to(x.dtype)), dim=-1), (0, 7))
