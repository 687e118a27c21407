"""Activation functions by name, and their gradients: what stands between the projections of an ffn."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Callable[[Tensor], Tensor]
aten = torch.ops.aten


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU's tanh form, as in GPT-2."""
    return F.gelu(x, approximate="tanh")


def relu2(x: Tensor) -> Tensor:
    """The square of ReLU: So 2021, arXiv:2109.08668 (Primer)."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Activation] = {"gelu": F.gelu, "gelu_tanh": gelu_tanh, "relu": F.relu, "relu2": relu2, "silu": F.silu}

# (gradient of the output, input) -> gradient of the input; for who computes an activation a second time instead of keeping it.
GRADIENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gelu": aten.gelu_backward.default,
    "gelu_tanh": lambda grad, x: aten.gelu_backward.default(grad, x, approximate="tanh"),
    "relu": lambda grad, x: grad * (x > 0),
    "relu2": lambda grad, x: 2 * grad * F.relu(x),
    "silu": aten.silu_backward.default,
}


def activation_by_name(name: str) -> Activation:
    """The function of that name, or a ValueError that lists the names there are."""
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    close = difflib.get_close_matches(name, ACTIVATIONS, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown activation {name!r}, known are {', '.join(ACTIVATIONS)}{hint}")
