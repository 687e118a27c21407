"""Linear maps, on a CPU by the faster of the two libraries that torch brings.

torch multiplies matrices of fp32 by MKL, which leaves half the width of a processor unused that is not Intel's; oneDNN, by
which torch convolves, uses it all. Measured on one core of an AMD EPYC with AVX-512, both ways of the gradient included: 1.8 to
2.3 times as fast from a million multiply-adds on.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .seeds import stacked

BUILT_IN = torch.backends.mkldnn.is_available()
LEAST = 2**20  # multiply-adds from which a product makes up for what a call costs
STEP = (
    64  # rows: of a number that varies, those beyond a multiple are left to MKL, since oneDNN prepares itself for each number
)


class Linear(nn.Linear):
    """As torch's own, by ``linear``."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b.

    Shape:  x: (..., d_in), weight: (d_out, d_in), bias: (d_out,) -> (..., d_out)
    """
    if not pays(x, weight):
        return F.linear(x, weight, bias)
    apply = linear_operator if torch.compiler.is_compiling() else OneDNN.apply
    y: Tensor = apply(x.reshape(-1, x.shape[-1]), weight, bias)
    return y.view(*x.shape[:-1], len(weight))


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN multiplies x (..., d_in) and weight (d_out, d_in), and faster."""
    return (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= max(1, LEAST)
        and BUILT_IN
        and not torch.is_autocast_enabled("cpu")
        and not stacked()  # torch multiplies the matrices of several models at once
    )


def by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x: (n, d_in) -> (n, d_out)"""
    x, weight = (t if t.is_contiguous() or t.mT.is_contiguous() else t.contiguous() for t in (x, weight))
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


def product(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
    """a b, without gradients, where the number of rows of a varies from call to call. (n, k), (k, m), out: (n, m)"""
    whole = len(a) // STEP * STEP
    if not pays(a[:whole], b.mT):
        return torch.mm(a, b, out=out)
    out[:whole] = by_onednn(a[:whole], b.mT, None)
    if whole < len(a):
        torch.mm(a[whole:], b, out=out[whole:])
    return out


def product_of_rows(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
    """a^T b, likewise. (n, k), (n, m), out: (k, m)"""
    whole = len(a) // STEP * STEP
    if not pays(a[:whole].mT, b[:whole].mT):
        return torch.mm(a.mT, b, out=out)
    out.copy_(by_onednn(a[:whole].mT, b[:whole].mT, None))
    return out if whole == len(a) else torch.addmm(out, a[whole:].mT, b[whole:], out=out)


class OneDNN(torch.autograd.Function):
    """``linear`` of rows, with its gradients, which are linear maps themselves."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return by_onednn(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return gradients(ctx, grad)


def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    to_x, to_weight, to_bias = ctx.needs_input_grad
    return (
        linear(grad, weight.mT) if to_x else None,
        linear(grad.mT, x.mT) if to_weight else None,
        grad.sum(0) if to_bias else None,
    )


# For torch.compile, which would take the product apart otherwise.
_OPERATORS = __name__.replace(".", "_")  # a copy of this package under another name registers its own
linear_operator = torch.library.custom_op(f"{_OPERATORS}::linear", by_onednn, mutates_args=())
linear_operator.register_fake(lambda x, weight, bias: x.new_empty(len(x), len(weight)))
linear_operator.register_autograd(gradients, setup_context=OneDNN.setup_context)
