"""A bank of experts, from the tokens through their experts to the sum of what these make of them.

On a CPU it goes expert by expert, all of it: a row is still in the cache for the next product, and no tensor of (rows, d_model)
is made or kept. Elsewhere there are gathers and sums around ``grouped_matmul``, which waits for no counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.compiler import is_compiling

from .activation import ACTIVATIONS, GRADIENTS
from .grouped import grouped_matmul, plan
from .linear import STEP, pays, product, product_of_rows
from .seeds import for_all, stacked


def expert_bank(
    x: Tensor, token: Tensor, gate: Tensor, counts: Tensor, inward: list[Tensor], outward: Tensor, activation: str
) -> Tensor:
    """Sum for each token what its experts make of it, by their gates; the rows, an assignment each, are sorted by expert.

    h_i = activation(W_1 x_token(i)) * W_2 x_token(i)      with W_1 alone: activation(W_1 x_token(i)); W of the row's expert
    y_t = sum over the rows i of token t:  gate_i W_out h_i;   the rows after those of the last expert add nothing

    Cost per row: d_in * d_ff multiply-adds for each matrix. The gradient of an expert without rows is zero; the gradients can
    be taken once. Gates and sum are fp32 also where the rows are bf16.
    Args:   token, gate: of each row. counts: rows of each expert. inward: W_1, or W_1 and W_2. activation: its name.
    Shape:  x: (t, d_in), token and gate: (rows,), counts: (experts,), each inward: (experts, d_ff, d_in),
            outward: (experts, d_out, d_ff) -> (t, d_out)
    """
    if stacked():
        return bank_of_models(x, token, gate, counts, inward, outward, activation)
    if x.device.type not in ("cpu", "meta"):  # without data it is known what it would keep, and that is what this keeps
        return by_groups(x, token, gate, counts, inward, outward, activation)
    x, outward, *inward = as_autocast(x, outward, *inward)
    if pays(x[: len(token) // len(counts)], inward[0][0]):  # the rows that an expert has on average
        token, gate, counts = in_steps(token, gate, counts)
    if is_compiling() or x.is_meta:
        y, *_ = bank_operator(x, token, gate, counts, inward, outward, activation)
        return y
    found: Tensor = Bank.apply(x, token, gate, counts, activation, outward, *inward)
    return found


def as_autocast(*factors: Tensor) -> tuple[Tensor, ...]:
    """In the dtype that autocast would give the factors of a product: it does not know these products."""
    device = factors[0].device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return factors
    return tuple(t.to(torch.get_autocast_dtype(device)) for t in factors)


def hidden(parts: list[Tensor], activation: str) -> Tensor:
    active = ACTIVATIONS[activation](parts[0])
    return active if len(parts) == 1 else active * parts[1]


# Of several models at once


def bank_of_models(
    x: Tensor, token: Tensor, gate: Tensor, counts: Tensor, inward: list[Tensor], outward: Tensor, activation: str
) -> Tensor:
    """The experts of all models as those of one. Behind those of each stands one of zeros, for the rows that had no expert."""

    def as_one(x: Tensor, token: Tensor, gate: Tensor, counts: Tensor, *banks: Tensor) -> Tensor:
        n, n_tokens = x.shape[:2]
        token = token + n_tokens * torch.arange(n, device=token.device)[:, None]
        counts = torch.cat((counts, token.shape[1] - counts.sum(1, keepdim=True)), dim=1)
        outward, *inward = (F.pad(bank, (0, 0, 0, 0, 0, 1)).flatten(0, 1) for bank in banks)
        y = expert_bank(x.flatten(0, 1), token.flatten(), gate.flatten(), counts.flatten(), inward, outward, activation)
        return y.unflatten(0, (n, n_tokens))

    y: Tensor = for_all(as_one, x, token, gate, counts, outward, *inward)
    return y


# In groups, on a device that nobody waits for


def by_groups(
    x: Tensor, token: Tensor, gate: Tensor, counts: Tensor, inward: list[Tensor], outward: Tensor, activation: str
) -> Tensor:
    gathered, outward, *inward = as_autocast(x.index_select(0, token), outward, *inward)  # so the sum of its gradient is fp32
    rows = hidden([grouped_matmul(gathered, weight, counts) for weight in inward], activation)
    gated = grouped_matmul(rows, outward, counts) * gate.unsqueeze(-1)
    return gated.new_zeros(len(x), gated.shape[1]).index_add_(0, token, gated)


# Expert by expert


def in_steps(token: Tensor, gate: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fill the rows of every expert up to a multiple of STEP, for products that are slow at any other number.

    What is filled in is the first token with a gate of 0, which changes neither sums nor gradients. The result is as long as
    it can get, whatever the counts; what is over comes last, behind the rows that had no expert.
    Shape:  token and gate: (rows,), counts: (experts,) -> token and gate: (rows + experts * (STEP - 1),), counts: (experts,)
    """
    filled, slot = (counts + STEP - 1) // STEP * STEP, plan(counts, len(token), STEP).slot
    size = len(token) + len(counts) * (STEP - 1)
    return token.new_zeros(size).index_copy(0, slot, token), gate.new_zeros(size).index_copy(0, slot, gate), filled


def by_expert(counts: Tensor, *rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The rows of each expert in every one of the tensors."""
    sizes: list[int] = counts.tolist()
    sizes.append(len(rows[0]) - sum(sizes))
    *experts, _ = zip(*(t.split(sizes) for t in rows), strict=True)
    return iter(experts)


def forward(
    x: Tensor, token: Tensor, gate: Tensor, counts: Tensor, inward: list[Tensor], outward: Tensor, activation: str
) -> tuple[Tensor, list[Tensor]]:
    """The sum and, of each expert, what its rows make with the inward matrices: (rows of it, matrices * d_ff)."""
    y = x.new_zeros(len(x), outward.shape[1], dtype=torch.promote_types(x.dtype, gate.dtype))
    kept = []
    for (tokens, gates), matrix, *matrices in zip(by_expert(counts, token, gate), outward, *inward, strict=True):
        parts = product(x.index_select(0, tokens), torch.cat(matrices).mT)
        gated = hidden(list(parts.chunk(len(matrices), dim=1)), activation) * gates.unsqueeze(-1)
        y.index_add_(0, tokens, product(gated.to(x.dtype), matrix.mT).to(y.dtype))
        kept.append(parts)
    return y, kept


def backward(
    grad: Tensor,
    kept: list[Tensor],
    x: Tensor,
    token: Tensor,
    gate: Tensor,
    counts: Tensor,
    inward: list[Tensor],
    outward: Tensor,
    activation: str,
    learns: bool,
) -> list[Tensor]:
    """Of x, of the gates and, if learns, of the outward and the inward matrices."""
    to_x = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))  # a token's experts are not summed in bf16
    to_gate = torch.zeros_like(gate)
    to_outward, *to_inward = (torch.empty_like(bank) for bank in (outward, *inward))
    experts = by_expert(counts, token, gate, to_gate)
    for expert, ((tokens, gates, to_gates), rows) in enumerate(zip(experts, kept, strict=True)):
        parts = list(rows.chunk(len(inward), dim=1))
        h = hidden(parts, activation)
        gathered = grad.index_select(0, tokens).to(x.dtype)
        to_h = product(gathered, outward[expert]).to(grad.dtype)
        to_gates.copy_((to_h * h).sum(-1))  # <W^T dy, h> = <dy, W h>: the product itself is not needed again
        to_h = (to_h * gates.unsqueeze(-1)).to(x.dtype)
        to_parts = hidden_gradient(to_h, parts, activation)
        matrices = torch.cat([bank[expert] for bank in inward])
        to_x.index_add_(0, tokens, product(to_parts, matrices).to(to_x.dtype))
        if learns:
            to_outward[expert] = product_of_rows(gathered, (h * gates.unsqueeze(-1)).to(x.dtype))
            found = product_of_rows(to_parts, x.index_select(0, tokens)).chunk(len(inward))
            for to_bank, part in zip(to_inward, found, strict=True):
                to_bank[expert] = part
    return [to_x.to(x.dtype), to_gate, *([to_outward, *to_inward] if learns else [])]


def hidden_gradient(grad: Tensor, parts: list[Tensor], activation: str) -> Tensor:
    """Of all parts, side by side."""
    if len(parts) == 1:
        return GRADIENTS[activation](grad, parts[0])
    return torch.cat([GRADIENTS[activation](grad * parts[1], parts[0]), grad * ACTIVATIONS[activation](parts[0])], dim=1)


class Bank(torch.autograd.Function):
    """Expert by expert, with the gradients of the tokens, of their gates and of every matrix."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, token: Tensor, gate: Tensor, counts: Tensor, activation: str, outward: Tensor, *inward: Tensor
    ) -> Tensor:
        y, kept = forward(x, token, gate, counts, list(inward), outward, activation)
        ctx.activation, ctx.matrices = activation, len(inward)
        ctx.save_for_backward(x, token, gate, counts, outward, *inward, *kept)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, token, gate, counts, outward, *others = ctx.saved_tensors
        inward, kept = others[: ctx.matrices], others[ctx.matrices :]
        learns = any(ctx.needs_input_grad[5:])
        found = backward(grad, kept, x, token, gate, counts, inward, outward, ctx.activation, learns)
        to_x, to_gate, *to_banks = found
        return to_x, None, to_gate, None, None, *(to_banks if learns else [None for _ in (outward, *inward)])


# For torch.compile, which cannot see the counts: what is kept of the experts is one tensor


def bank(
    x: Tensor, token: Tensor, gate: Tensor, counts: Tensor, inward: list[Tensor], outward: Tensor, activation: str
) -> tuple[Tensor, Tensor]:
    y, kept = forward(x, token, gate, counts, inward, outward, activation)
    rows = x.new_zeros(len(token), len(inward) * outward.shape[2])
    torch.cat(kept, out=rows[: sum(map(len, kept))])
    return y, rows


def bank_gradients(
    grad: Tensor,
    rows: Tensor,
    x: Tensor,
    token: Tensor,
    gate: Tensor,
    counts: Tensor,
    inward: list[Tensor],
    outward: Tensor,
    activation: str,
    learns: bool,
) -> list[Tensor]:
    kept = [part for (part,) in by_expert(counts, rows)]
    return backward(grad, kept, x, token, gate, counts, inward, outward, activation, learns)


def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, token, gate, counts, inward, outward, ctx.activation = inputs
    ctx.save_for_backward(output[1], x, token, gate, counts, outward, *inward)


def backward_of_operator(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Any, ...]:
    rows, x, token, gate, counts, outward, *inward = ctx.saved_tensors
    learns = any(ctx.needs_input_grad[4]) or ctx.needs_input_grad[5]
    found = bank_gradients_operator(grad, rows, x, token, gate, counts, inward, outward, ctx.activation, learns)
    to_x, to_gate, *to_banks = found
    to_outward, *to_inward = to_banks or [None] * (1 + len(inward))
    return to_x, None, to_gate, None, to_inward, to_outward, None


_OPERATORS = __name__.replace(".", "_")  # a copy of this package under another name registers its own
bank_operator, bank_gradients_operator = (
    torch.library.custom_op(f"{_OPERATORS}::{function.__name__}", function, mutates_args=())
    for function in (bank, bank_gradients)
)
bank_operator.register_fake(
    lambda x, token, gate, counts, inward, outward, activation: (
        x.new_empty(len(x), outward.shape[1], dtype=torch.promote_types(x.dtype, gate.dtype)),
        x.new_empty(len(token), len(inward) * outward.shape[2]),
    )
)
bank_gradients_operator.register_fake(
    lambda grad, rows, x, token, gate, counts, inward, outward, activation, learns: [
        torch.empty_like(t) for t in (x, gate, *((outward, *inward) if learns else ()))
    ]
)
bank_operator.register_autograd(backward_of_operator, setup_context=keep)
