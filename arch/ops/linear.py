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
    32  # rows: of a number that varies, oneDNN takes the multiples alone, since it prepares itself for each for a millisecond
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


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b, without gradients, where the number of rows of a varies from call to call. (n, k), (k, m) -> (n, m)"""
    return a @ b if len(a) % STEP or not pays(a, b.mT) else by_onednn(a, b.mT, None)


def product_of_rows(a: Tensor, b: Tensor) -> Tensor:
    """a^T b, likewise. (n, k), (n, m) -> (k, m)"""
    if len(a) % STEP or not pays(a.mT, b.mT):
        return a.mT @ b
    # The narrower one first: measured on one core at 512 rows of 64 and of 512 channels, 133 GFLOP/s against 91
    return by_onednn(a.mT, b.mT, None) if a.shape[1] <= b.shape[1] else by_onednn(b.mT, a.mT, None).mT


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
