"""The recurrence of a GRU in few products: one for all tokens, and one per token for the state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

FEW_ROWS = 16  # from which a second thread pays


def gru(x: Tensor, w: Tensor, u: Tensor, w_bias: Tensor, u_bias: Tensor, first: Tensor, starts: Tensor | None = None) -> Tensor:
    """Every state of a gated recurrence.

    r, z = sigmoid(W_r x + U_r h + b), sigmoid(W_z x + U_z h + b);  n = tanh(W_n x + c + r * (U_n h + d))
    h = (1 - z) * n + z * h,  h_{-1} = first

    Paper: Cho 2014, arXiv:1406.1078 (section 2.3). Differs: as nn.GRU does; a document starts from zeros.
    Cost per token: 6 * d^2 multiply-adds. The gradients, which can be taken once, go back token by token with one product each,
    and make those of the weights for all tokens at once.
    Args:   w, u: W and U, the rows of r, z and n stacked. first: the state before the first token. starts: whether a document
            starts with the token; None = none does.
    Shape:  x: (batch, seq, d), w, u: (3 * d, d), w_bias, u_bias: (3 * d,), first: (batch, d), starts: (batch, seq)
            -> (batch, seq, d)
    """
    kept = torch.ones(x.shape[:2], device=x.device) if starts is None else ~starts
    h: Tensor = GatedRecurrence.apply(x, w, u, w_bias, u_bias, first, kept.T.unsqueeze(-1).to(x.dtype))
    return h


@contextmanager
def threads_for(rows: int) -> Iterator[None]:
    """One for few rows: more make their products no faster, and wait for each other token by token on a processor in use."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if rows >= FEW_ROWS else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class GatedRecurrence(torch.autograd.Function):
    """The states with their gradients. kept: (s, b, 1), what a token keeps of the state before it, 1 or 0.

    A token has four parts: the state makes the first three of U_n h + d, r, z, n, and x the last three. Time comes first.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, u: Tensor, w_bias: Tensor, u_bias: Tensor, first: Tensor, kept: Tensor
    ) -> Tensor:
        b, s, d = x.shape
        x = x.transpose(0, 1).reshape(s * b, d)
        parts = (F.pad(u_bias.roll(d), (0, d)) + F.pad(w_bias, (d, 0))).repeat(s * b, 1)
        torch.addmm(parts[:, d:], x, w.T, out=parts[:, d:])
        parts = parts.view(s, b, 4 * d)
        before, h = (x.new_empty(s, b, d) for _ in range(2))
        to_parts = u.roll(d, 0).T.contiguous()  # the layout that a product of few rows is fastest in
        views = (parts[..., : 3 * d], parts[..., d : 3 * d], *parts.chunk(4, dim=-1), kept, before, h)
        state = first
        with threads_for(b):
            for from_state, gates, u_n, r, z, n, keep, earlier, after in zip(*(view.unbind() for view in views), strict=True):
                torch.mul(state, keep, out=earlier)
                torch.addmm(from_state, earlier, to_parts, out=from_state)
                gates.sigmoid_()
                n.addcmul_(r, u_n).tanh_()
                state = torch.lerp(n, earlier, z, out=after)
        ctx.save_for_backward(x, w, u, kept, parts, before)
        return h.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w, u, kept, parts, before = ctx.saved_tensors
        s, b, d = before.shape
        u_n, r, z, n = parts.chunk(4, dim=-1)
        to_parts = torch.empty_like(parts)  # first for a gradient of 1 of the state
        to_u_n, to_r, to_z, to_n = to_parts.chunk(4, dim=-1)
        torch.mul(n, n, out=to_n).neg_().add_(1).mul_(1 - z)
        torch.mul(to_n, r, out=to_u_n)
        torch.mul(to_u_n, u_n, out=to_r).mul_(1 - r)
        torch.sub(before, n, out=to_z).mul_(z).mul_(1 - z)
        to_h = x.new_zeros(s + 1, b, d)  # of the states before the tokens, and of the last
        to_h[1:] = grad.transpose(0, 1)
        from_parts = u.roll(d, 0)
        views = (to_parts.view(s, b, 4, d), to_parts[..., : 3 * d], z, kept, to_h[:-1], to_h[1:])
        tokens = list(zip(*(view.unbind() for view in views), strict=True))
        with threads_for(b):
            for to_each, to_first, z_, keep, to_earlier, to_state in reversed(tokens):
                to_each.mul_(to_state.unsqueeze(1))
                to_before = to_state * z_
                to_earlier.addcmul_(torch.addmm(to_before, to_first, from_parts, out=to_before), keep)
        by_token = to_parts.view(s * b, 4 * d)
        by_state, by_x, sums = by_token[:, : 3 * d], by_token[:, d:], by_token.sum(0)
        to_x = (by_x @ w).view(s, b, d).transpose(0, 1)
        to_u = (by_state.T @ before.view(s * b, d)).roll(-d, 0)
        return to_x, by_x.T @ x, to_u, sums[d:], sums[: 3 * d].roll(-d), to_h[0], None
