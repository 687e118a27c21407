"""Root-mean-square normalisation in few passes over memory.

torch's kernels for a GPU, and those that it compiles, do it at once. On a CPU it runs the formula operation by operation, each
into fresh memory: for half a million numbers that takes three times as long as this, and seven times as long as LayerNorm.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .seeds import stacked


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight.

    Shape:  x: (..., d), weight: (d,) -> (..., d)
    """
    # In bf16 that sums in fp32.
    if x.device.type != "cpu" or x.dtype.itemsize < 4 or torch.compiler.is_compiling() or stacked():
        return F.rms_norm(x, weight.shape, weight, eps)
    y: Tensor = RMSNormed.apply(x, weight, eps)[0]
    return y


class RMSNormed(torch.autograd.Function):
    """``rms_norm`` with its gradients, and what it multiplies each token by.

    y = w n,  n = r x,  r = 1 / sqrt(mean(x^2) + eps)
    dx = r (w dy - n mean(w dy n)),   dw = sum over tokens of dy n
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (..., 1)
        r = (length.square() / x.shape[-1] + eps).rsqrt()
        return (x * r).mul_(weight), r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        ctx.eps = inputs[2]
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs[:2], output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, r = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradients will have gradients: the plain formula knows them
            y = F.rms_norm(x, weight.shape, weight, ctx.eps)
            return *torch.autograd.grad(y, (x, weight), grad, create_graph=True, materialize_grads=True), None
        n = x * r
        product = grad * n
        share = (product @ weight).div_(x.shape[-1]).unsqueeze(-1)
        to_weight = product.reshape(-1, x.shape[-1]).sum(0)
        return torch.mul(grad, weight, out=product).addcmul_(n, share, value=-1).mul_(r), to_weight, None
