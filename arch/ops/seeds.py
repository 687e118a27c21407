"""Several models of one shape in one pass, as torch.vmap makes them: the operations that it has no rule for, or a slow one.

Inside such a pass no tensor shows the axis of the models; here an operation gets it to see, as the first axis of every tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def stacked() -> bool:
    """Whether this is a pass of several models."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def for_all(function: Callable[..., Any], *tensors: Tensor | None) -> Any:
    """Call a function once for all models: it takes and returns (models, ...) where the caller has (...). The gradients are
    those of what it calls."""
    return ForAll.apply(function, *tensors)


def as_rows(function: Callable[..., Any], *tensors: Tensor | None) -> Any:
    """Likewise, where the rows of all models are simply more rows: (rows, ...) -> (rows, ...)."""

    def of_rows(*wide: Tensor | None) -> Any:
        n = next(len(t) for t in wide if t is not None)
        found = function(*(None if t is None else t.flatten(0, 1) for t in wide))
        if isinstance(found, Tensor):
            return found.unflatten(0, (n, -1))
        return tuple(t.unflatten(0, (n, -1)) for t in found)

    return for_all(of_rows, *tensors)


class ForAll(torch.autograd.Function):
    """A way out of torch.vmap and back."""

    @staticmethod
    def forward(function: Callable[..., Any], *tensors: Tensor | None) -> Any:
        raise NotImplementedError  # called inside torch.vmap alone, which calls what follows instead

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], function: Callable[..., Any], *tensors: Tensor | None) -> Any:
        n = info.batch_size
        return function(*(with_models_first(t, dim, n) for t, dim in zip(tensors, in_dims[1:], strict=True))), 0


def with_models_first(tensor: Tensor | None, dim: int | None, n: int) -> Tensor | None:
    if tensor is None:
        return None
    return tensor.expand(n, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
