"""Linear recurrences over time in few steps: about three times the square root of their length, each of them wide.

Only sums, and products of decays, are formed: nothing is divided and no logarithm is taken, so that decays of 0 (a new
document) and of 1 are exact, and nothing overflows where no decay exceeds 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .seeds import as_rows, stacked


def linear_scan(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    """Every state of a recurrence that is linear in its state.

    h_t = a_t * h_{t-1} + b_t,  h_{-1} = first

    Cost per token: 3 multiply-adds per number of state; a and h are stored for the gradients. They can be taken once.
    Args:   a: decays. b: what comes in. first: the state before the first token.
    Shape:  a, b: (batch, seq, ...), first: (batch, ...) -> (batch, seq, ...)
    """
    if stacked():
        of_all: Tensor = as_rows(Scan.apply, a, b, first)
        return of_all
    # An operator of our own is opaque to torch.compile, which would unroll every step; called eagerly a Function is lighter.
    h: Tensor = scan_operator(a, b, first) if torch.compiler.is_compiling() else Scan.apply(a, b, first)
    return h


def chunked(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
    """All chunks at once from states of zeros, then the state from chunk to chunk, then all chunks from the right states."""
    size = math.isqrt(a.shape[1])
    chunks = a.shape[1] // size
    whole = chunks * size
    h = torch.empty_like(b)
    a_cut, b_cut, h_cut = (x[:, :whole].unflatten(1, (chunks, size)) for x in (a, b, h))  # (b, chunks, size, ...)

    end, decay = b_cut[:, :, 0], a_cut[:, :, 0]  # what a chunk adds to the state, and how much of the state outlives it
    for t in range(1, size):
        end = torch.addcmul(b_cut[:, :, t], a_cut[:, :, t], end)
        decay = decay * a_cut[:, :, t]

    starts = [first]  # of each chunk, and of the rest
    for i in range(chunks):
        starts.append(torch.addcmul(end[:, i], decay[:, i], starts[-1]))

    state = torch.stack(starts[:-1], dim=1)
    for t in range(size):
        state = h_cut[:, :, t] = torch.addcmul(b_cut[:, :, t], a_cut[:, :, t], state)

    state = starts[-1]
    for t in range(whole, a.shape[1]):  # fewer than ``size``
        state = h[:, t] = torch.addcmul(b[:, t], a[:, t], state)
    return h


def backward_by(scan: Callable[..., Tensor]) -> Callable[..., Any]:
    """The gradient is the same scan from the last token to the first: g_t = grad_t + a_{t+1} * g_{t+1}."""

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, h, first = ctx.saved_tensors
        # Rolled, a_0 stands before the last token and meets a state of zeros.
        g = scan(a.roll(-1, 1).flip(1), grad.flip(1), torch.zeros_like(first)).flip(1)
        before = torch.cat((first.unsqueeze(1), h[:, :-1]), dim=1)
        return g * before, g, g[:, 0] * a[:, 0]

    return backward


def save_for_backward(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    a, _, first = inputs
    ctx.save_for_backward(a, output, first)


class Scan(torch.autograd.Function):
    """The scan with its gradients."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, first: Tensor) -> Tensor:
        return chunked(a, b, first)

    setup_context = staticmethod(save_for_backward)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        gradients: tuple[Tensor, ...] = backward_by(chunked)(ctx, grad)
        return gradients


_OPERATORS = __name__.replace(".", "_")  # a copy of this package under another name registers its own
scan_operator = torch.library.custom_op(f"{_OPERATORS}::linear_scan", chunked, mutates_args=())
scan_operator.register_fake(lambda a, b, first: torch.empty_like(b))
scan_operator.register_autograd(backward_by(scan_operator), setup_context=save_for_backward)
