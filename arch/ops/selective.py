"""The recurrence of Mamba, piece by piece: the states of a whole text, each d_state times as wide as a token, are never stored.

The states of a piece stay in a processor's cache. What is kept for the gradients is the state before each piece, from which
they compute the piece anew. Letters beside the usual: n d_state, p tokens of a piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .seeds import as_rows, stacked

NUMBERS = 2**18  # in the states of a piece, where LEAST tokens have no more
LEAST = 8  # tokens of a piece: there are as many times more of them than of the states that are kept


def selective_scan(
    dt: Tensor, A: Tensor, B: Tensor, C: Tensor, u: Tensor, first: Tensor, starts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A state per channel that decays and takes in the token at a pace of the token's own: what is read, and the last state.

    h_t = exp(dt_t A) * h_{t-1} + dt_t u_t B_t^T,  h_{-1} = first;  y_t = h_t C_t

    Paper: Gu 2023, arXiv:2312.00752 (algorithm 2). Differs: nothing; a document starts from zeros.
    Cost per token: 3 * d * d_state multiply-adds and d * d_state exponentials; the gradients, which can be taken once, compute
    them a second time.
    Args:   dt: above 0. A: at most 0. first: the state before the first token. starts: whether a document starts with the
            token; None = none does.
    Shape:  dt, u: (batch, seq, d), A: (d, d_state), B, C: (batch, seq, d_state), first: (batch, d, d_state),
            starts: (batch, seq) -> (batch, seq, d), (batch, d, d_state)
    """
    if starts is None:
        starts = torch.zeros(u.shape[:2], dtype=torch.bool, device=u.device)
    # Rows come first in every tensor, and last the channels, of which there are many.
    inputs = (dt, A.mT.expand(len(u), -1, -1), B, C, u, first.mT, starts)
    # An operator of our own is opaque to torch.compile, which would unroll every step, and on a meta device it takes none;
    # called eagerly a Function is lighter.
    if torch.compiler.is_compiling() or u.is_meta:
        y, last, *_ = scan_operator(*inputs)
    else:
        y, last = as_rows(SelectiveScan.apply, *inputs) if stacked() else SelectiveScan.apply(*inputs)
    return y, last.mT


def piece(u: Tensor, first: Tensor) -> tuple[int, int]:
    """How many rows and tokens are worked on at once."""
    batch, seq, state = u.shape[0], u.shape[1], first[0].numel()
    rows = min(batch, max(1, NUMBERS // (LEAST * state)))
    return rows, min(seq, max(LEAST, NUMBERS // (rows * state)))


def by_rows(function: Callable[..., tuple[Tensor, ...]], rows: int, tokens: int, *inputs: Tensor) -> tuple[Tensor, ...]:
    parts = [function(tokens, *group) for group in zip(*(x.split(rows) for x in inputs), strict=True)]
    return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))


def by_tokens(tokens: int, *inputs: Tensor) -> list[tuple[Tensor, ...]]:
    """(b, s, ...) each -> of every piece (p, b, ...) each."""
    return list(zip(*(x.transpose(0, 1).split(tokens) for x in inputs), strict=True))


def forgetful(dt: Tensor, starts: Tensor) -> Tensor:
    """The time that passes before the token's own: without end before a document."""
    return dt.masked_fill(starts[..., None], math.inf)


def states(room: Tensor, before: Tensor, passed: Tensor, A: Tensor, B: Tensor, taken: Tensor) -> tuple[Tensor, Tensor]:
    """Of a piece the decays (p, b, n, d) and the states (p + 1, b, n, d), the one before it first; both lie in ``room``."""
    decays, h = room[0, : len(B)], room[1, : len(B) + 1]
    # On a CPU exp2 is several times as fast as exp. A rate of 0 would make no number of an endless time.
    rates = (A * math.log2(math.e)).clamp_(max=-torch.finfo(A.dtype).tiny)
    torch.mul(passed.unsqueeze(-2), rates, out=decays).exp2_()
    h[0] = before
    torch.mul(B.unsqueeze(-1), taken.unsqueeze(-2), out=h[1:])
    for decay, earlier, state in zip(decays.unbind(), h[:-1].unbind(), h[1:].unbind(), strict=True):
        state.addcmul_(decay, earlier)
    return decays, h


def scan_rows(
    tokens: int, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, u: Tensor, first: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    y, kept = dt.new_empty(dt.shape), [first]
    room = first.new_empty(2, tokens + 1, *first.shape)  # once: fresh memory costs more than the work on it
    for passed, B_, C_, taken, y_ in by_tokens(tokens, forgetful(dt, starts), B, C, dt * u, y):
        _, h = states(room, kept[-1], passed, A, B_, taken)
        y_.copy_((C_.unsqueeze(-2) @ h[1:]).squeeze(-2))
        kept.append(h[-1].clone())
    return y, kept.pop(), torch.stack(kept, dim=1)


def gradients_of_rows(
    tokens: int,
    to_y: Tensor,
    carried: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    u: Tensor,
    starts: Tensor,
    kept: Tensor,
) -> tuple[Tensor, ...]:
    """carried: (b, n, d), the gradient of the last state."""
    to_dt, to_B, to_C, to_taken = outputs = [x.new_empty(x.shape) for x in (dt, B, C, u)]
    to_A = A.new_zeros(A.shape)
    room = A.new_empty(4, tokens + 1, *A.shape)
    pieces = by_tokens(tokens, to_y, forgetful(dt, starts), dt, B, C, dt * u, *outputs)
    for (to_y_, passed, dt_, B_, C_, taken, *outputs_), before in zip(reversed(pieces), reversed(kept.unbind(1)), strict=True):
        to_dt_, to_B_, to_C_, to_taken_ = outputs_
        decays, h = states(room, before, passed, A, B_, taken)
        to_h, product = room[2:, : len(B_)]
        torch.mul(C_.unsqueeze(-1), to_y_.unsqueeze(-2), out=to_h)
        for to_state, decay in zip(reversed(to_h.unbind()), reversed(decays.unbind()), strict=True):
            to_state.add_(carried)
            carried = decay.mul_(to_state)  # on to the state before
        carried = carried.clone()
        to_exponent = decays.mul_(h[:-1])
        to_dt_.copy_(torch.mul(to_exponent, A, out=product).sum(-2))
        to_A += to_exponent.mul_(dt_.unsqueeze(-2)).sum(0)
        # A row times a matrix: the matrix times a column takes ten times as long.
        to_C_.copy_((to_y_.unsqueeze(-2) @ h[1:].mT).squeeze(-2))
        to_B_.copy_((taken.unsqueeze(-2) @ to_h.mT).squeeze(-2))
        to_taken_.copy_((B_.unsqueeze(-2) @ to_h).squeeze(-2))
    return to_dt.addcmul_(to_taken, u), to_A, to_B, to_C, to_taken.mul_(dt), carried


def scan(
    dt: Tensor, A: Tensor, B: Tensor, C: Tensor, u: Tensor, first: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A, first: (b, n, d) -> y, the last state (b, n, d), and the states before each piece (b, pieces, n, d)."""
    y, last, kept = by_rows(scan_rows, *piece(u, first), dt, A, B, C, u, first, starts)
    return y, last, kept


def gradients(
    to_y: Tensor, to_last: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, u: Tensor, starts: Tensor, kept: Tensor
) -> list[Tensor]:
    """Of dt, A, B, C, u and the first state."""
    return list(by_rows(gradients_of_rows, *piece(u, A), to_y, to_last, dt, A, B, C, u, starts, kept))


class SelectiveScan(torch.autograd.Function):
    """The scan with its gradients."""

    @staticmethod
    def forward(
        ctx: Any, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, u: Tensor, first: Tensor, starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, last, kept = scan(dt, A, B, C, u, first, starts)
        ctx.save_for_backward(dt, A, B, C, u, starts, kept)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_y: Tensor, to_last: Tensor) -> tuple[Tensor | None, ...]:
        return *gradients(to_y, to_last, *ctx.saved_tensors), None


def shapes(dt: Tensor, A: Tensor, B: Tensor, C: Tensor, u: Tensor, first: Tensor, starts: Tensor) -> tuple[Tensor, ...]:
    n_pieces = -(-u.shape[1] // piece(u, first)[1])
    return dt.new_empty(dt.shape), first.new_empty(first.shape), first.new_empty(len(first), n_pieces, *first.shape[1:])


_OPERATORS = __name__.replace(".", "_")  # a copy of this package under another name registers its own
scan_operator = torch.library.custom_op(f"{_OPERATORS}::selective_scan", scan, mutates_args=())
gradients_operator = torch.library.custom_op(f"{_OPERATORS}::selective_scan_gradients", gradients, mutates_args=())
scan_operator.register_fake(shapes)
gradients_operator.register_fake(
    lambda to_y, to_last, dt, A, B, C, u, starts, kept: [x.new_empty(x.shape) for x in (dt, A, B, C, u, to_last)]
)
scan_operator.register_autograd(
    lambda ctx, to_y, to_last, _: (*gradients_operator(to_y, to_last, *ctx.saved_tensors), None),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:5], inputs[6], output[2]),
)
