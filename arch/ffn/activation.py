"""Activation functions by name: what stands between the projections of an ffn."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Activation = Callable[[Tensor], Tensor]


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU's tanh form, as in GPT-2."""
    return F.gelu(x, approximate="tanh")


def relu2(x: Tensor) -> Tensor:
    """The square of ReLU: So 2021, arXiv:2109.08668 (Primer)."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Activation] = {"gelu": F.gelu, "gelu_tanh": gelu_tanh, "relu": F.relu, "relu2": relu2, "silu": F.silu}


def activation_by_name(name: str) -> Activation:
    """The function of that name, or a ValueError that lists the names there are."""
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    close = difflib.get_close_matches(name, ACTIVATIONS, n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown activation {name!r}, known are {', '.join(ACTIVATIONS)}{hint}")
