"""The two products of a MoE: dispatch, from the tokens to the rows of their experts, and combine, from those rows back.

On a CPU both go expert by expert, gather and sum included: a row is still in the cache when it is multiplied, and no tensor of
(rows, d_model) is made or kept. Elsewhere they are gathers and sums around ``grouped_matmul``, which waits for no counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.compiler import is_compiling

from .grouped import grouped_matmul
from .linear import product, product_of_rows
from .seeds import for_all, stacked


def dispatch_matmul(x: Tensor, token: Tensor, counts: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Multiply the token of each row by the matrix of the row's expert, once for every bank; rows are sorted by expert.

    h_i = weight_e x_token(i)   for the counts_e rows i of expert e;   h_i = 0 for the rows after those of the last expert

    Cost per row and bank: d_in * d_out multiply-adds. The gradient of an expert without rows is zero.
    Args:   token: of each row. counts: rows of each expert. weights: banks of one d_in.
    Shape:  x: (t, d_in), token: (rows,), counts: (experts,), each bank: (experts, d_out, d_in) -> of each bank (rows, d_out)
    """
    if stacked():
        return list(for_all(dispatch_of_models, x, token, counts, *weights))
    if not host_knows_counts(x):
        gathered, *weights = as_autocast(x.index_select(0, token), *weights)  # in this order the sum of its gradient is fp32
        return [grouped_matmul(gathered, weight, counts) for weight in weights]
    x, *weights = as_autocast(x, *weights)
    if is_compiling():
        rows: list[Tensor] = dispatch_operator(x, token, counts, weights)
        return rows
    return list(Dispatch.apply(x, token, counts, *weights))


def matmul_combine(h: Tensor, gate: Tensor, token: Tensor, counts: Tensor, weight: Tensor, n_tokens: int) -> Tensor:
    """Multiply each row by the matrix of its expert, and sum the rows of each token by their gates.

    y_t = sum over the rows i of token t:  gate_i weight_e h_i;   the rows after those of the last expert add nothing

    Cost per row: d_in * d_out multiply-adds. Gates and sum are fp32 also where the rows are bf16.
    Args:   gate: of each row. token, counts: as in dispatch_matmul. n_tokens: rows of the sum.
    Shape:  h: (rows, d_in), gate: (rows,), weight: (experts, d_out, d_in) -> (n_tokens, d_out)
    """
    y: Tensor
    if stacked():
        y = for_all(partial(combine_of_models, n_tokens=n_tokens), h, gate, token, counts, weight)
        return y
    h, weight = as_autocast(h, weight)
    if not host_knows_counts(h):
        gated = grouped_matmul(h, weight, counts) * gate.unsqueeze(-1)
        return gated.new_zeros(n_tokens, gated.shape[1]).index_add_(0, token, gated)
    product = combine_operator if is_compiling() else Combine.apply
    y = product(h, gate, token, counts, weight, n_tokens)
    return y


def as_autocast(*factors: Tensor) -> tuple[Tensor, ...]:
    """In the dtype that autocast would give the factors of a product: it does not know these products."""
    device = factors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return factors
    return tuple(t.to(torch.get_autocast_dtype(device)) for t in factors)


def host_knows_counts(x: Tensor) -> bool:
    """Whether reading them waits for no device. On the meta device there is nothing to read."""
    return x.device.type in ("cpu", "meta")


# For several models at once, whose experts are those of one model with as many more


def as_one_bank(n_tokens: int, token: Tensor, counts: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Of n models (n, ...) each -> the rows' tokens, counts and banks of one. Behind the experts of each model stands one of
    zeros, for the rows that none of them works on."""
    token = token + n_tokens * torch.arange(len(token), device=token.device)[:, None]
    unserved = token.shape[1] - counts.sum(1, keepdim=True)
    banks = [F.pad(weight, (0, 0, 0, 0, 0, 1)).flatten(0, 1) for weight in weights]
    return token.flatten(), torch.cat((counts, unserved), dim=1).flatten(), banks


def dispatch_of_models(x: Tensor, token: Tensor, counts: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    rows, counts, banks = as_one_bank(x.shape[1], token, counts, *weights)
    return tuple(h.view(*token.shape, -1) for h in dispatch_matmul(x.flatten(0, 1), rows, counts, banks))


def combine_of_models(h: Tensor, gate: Tensor, token: Tensor, counts: Tensor, weight: Tensor, n_tokens: int) -> Tensor:
    rows, counts, (bank,) = as_one_bank(n_tokens, token, counts, weight)
    y = matmul_combine(h.flatten(0, 1), gate.flatten(), rows, counts, bank, len(h) * n_tokens)
    return y.view(len(h), n_tokens, -1)


# Expert by expert


def by_expert(counts: Tensor, *rows: Tensor) -> list[tuple[Tensor, ...]]:
    """The rows of each expert in every one of the tensors and, last, those after them all."""
    sizes: list[int] = counts.tolist()
    sizes.append(len(rows[0]) - sum(sizes))
    return list(zip(*(t.split(sizes) for t in rows), strict=True))


def dispatch(x: Tensor, token: Tensor, counts: Tensor, weights: list[Tensor]) -> list[Tensor]:
    rows = [x.new_empty(len(token), weight.shape[1]) for weight in weights]
    if x.is_meta:
        return rows
    *experts, unserved = by_expert(counts, token, *rows)
    for (tokens, *outs), *matrices in zip(experts, *weights, strict=True):
        gathered = x.index_select(0, tokens)
        for out, matrix in zip(outs, matrices, strict=True):
            product(gathered, matrix.mT, out=out)
    for out in unserved[1:]:
        out.zero_()
    return rows


def dispatch_gradients(
    grads: list[Tensor], x: Tensor, token: Tensor, counts: Tensor, weights: list[Tensor], learns: bool
) -> list[Tensor]:
    """Of x and, if learns, of each bank."""
    to_x = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))  # a token's experts are not summed in bf16
    to_banks = [torch.empty_like(weight) for weight in weights] if learns else []
    if x.is_meta:
        return [to_x.to(x.dtype), *to_banks]
    *experts, _ = by_expert(counts, token, *grads)
    for expert, (tokens, first, *others) in enumerate(experts):
        summed, another = first.new_empty(2, len(tokens), x.shape[1])
        product(first, weights[0][expert], out=summed)
        for grad, weight in zip(others, weights[1:], strict=True):
            summed += product(grad, weight[expert], out=another)
        to_x.index_add_(0, tokens, summed.to(to_x.dtype))
        if learns:
            gathered = x.index_select(0, tokens)
            for grad, to_bank in zip((first, *others), to_banks, strict=True):
                product_of_rows(grad, gathered, out=to_bank[expert])
    return [to_x.to(x.dtype), *to_banks]


def combine(h: Tensor, gate: Tensor, token: Tensor, counts: Tensor, weight: Tensor, n_tokens: int) -> Tensor:
    y = h.new_zeros(n_tokens, weight.shape[1], dtype=torch.promote_types(h.dtype, gate.dtype))
    if h.is_meta:
        return y
    *experts, _ = by_expert(counts, token, gate, h)
    for (tokens, gates, rows), matrix in zip(experts, weight, strict=True):
        out = product(rows, matrix.mT, out=rows.new_empty(len(rows), len(matrix)))
        y.index_add_(0, tokens, out * gates.unsqueeze(-1))
    return y


def combine_gradients(
    grad: Tensor, h: Tensor, gate: Tensor, token: Tensor, counts: Tensor, weight: Tensor, learns: bool
) -> list[Tensor]:
    """Of h, of the gates and, if learns, of the bank."""
    to_h, to_gate = torch.zeros_like(h), torch.zeros_like(gate)
    to_bank = [torch.empty_like(weight)] if learns else []
    if h.is_meta:
        return [to_h, to_gate, *to_bank]
    *experts, _ = by_expert(counts, token, gate, h, to_gate, to_h)
    for expert, (tokens, gates, rows, to_gates, to_rows) in enumerate(experts):
        gathered = grad.index_select(0, tokens)
        ungated = product(gathered.to(h.dtype), weight[expert], out=torch.empty_like(rows)).to(grad.dtype)
        to_gates.copy_((ungated * rows).sum(-1))  # <W^T dy, h> = <dy, W h>: the product itself is not needed again
        to_rows.copy_(ungated * gates.unsqueeze(-1))
        if learns:
            product_of_rows((gathered * gates.unsqueeze(-1)).to(h.dtype), rows, out=to_bank[0][expert])
    return [to_h, to_gate, *to_bank]


# With their gradients: a Function each and, for torch.compile, which cannot see the counts, an operator each (eagerly slower)


def dispatch_backward(
    gradients: Callable[..., list[Tensor]], saved: Sequence[Tensor], grads: list[Tensor], learns: bool
) -> tuple[Tensor, None, None, Sequence[Tensor | None]]:
    x, token, counts, *weights = saved
    to_x, *to_banks = gradients(grads, x, token, counts, weights, learns)
    return to_x, None, None, to_banks or [None] * len(weights)


def combine_backward(gradients: Callable[..., list[Tensor]]) -> Callable[..., tuple[Tensor | None, ...]]:
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        learns = ctx.needs_input_grad[4]
        to_h, to_gate, *to_bank = gradients(grad, *ctx.saved_tensors, learns)
        return to_h, to_gate, None, None, to_bank[0] if learns else None, None

    return backward


class Dispatch(torch.autograd.Function):
    """``dispatch`` with the gradients of the tokens and of every bank."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, counts: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, token, counts, *weights)
        return tuple(dispatch(x, token, counts, list(weights)))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *others, to_banks = dispatch_backward(dispatch_gradients, ctx.saved_tensors, list(grads), any(ctx.needs_input_grad[3:]))
        return *others, *to_banks


class Combine(torch.autograd.Function):
    """``combine`` with the gradients of the rows, of their gates and of the bank."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, gate: Tensor, token: Tensor, counts: Tensor, weight: Tensor, n_tokens: int) -> Tensor:
        ctx.save_for_backward(h, gate, token, counts, weight)
        return combine(h, gate, token, counts, weight, n_tokens)

    backward = staticmethod(combine_backward(combine_gradients))


_OPERATORS = __name__.replace(".", "_")  # a copy of this package under another name registers its own
dispatch_operator, dispatch_gradients_operator, combine_operator, combine_gradients_operator = (
    torch.library.custom_op(f"{_OPERATORS}::{function.__name__}", function, mutates_args=())
    for function in (dispatch, dispatch_gradients, combine, combine_gradients)
)
dispatch_operator.register_fake(
    lambda x, token, counts, weights: [x.new_empty(len(token), weight.shape[1]) for weight in weights]
)
dispatch_gradients_operator.register_fake(
    lambda grads, x, token, counts, weights, learns: [torch.empty_like(t) for t in (x, *(weights if learns else ()))]
)
combine_operator.register_fake(
    lambda h, gate, token, counts, weight, n_tokens: h.new_empty(
        n_tokens, weight.shape[1], dtype=torch.promote_types(h.dtype, gate.dtype)
    )
)
combine_gradients_operator.register_fake(
    lambda grad, h, gate, token, counts, weight, learns: [
        torch.empty_like(t) for t in (h, gate, *((weight,) if learns else ()))
    ]
)
dispatch_operator.register_autograd(
    lambda ctx, grads: dispatch_backward(dispatch_gradients_operator, ctx.saved_tensors, grads, any(ctx.needs_input_grad[3])),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:3], *inputs[3]),
)
combine_operator.register_autograd(
    combine_backward(combine_gradients_operator),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:5]),
)
