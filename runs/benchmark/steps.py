"""The work that is timed: a training step of a model, and a pass through a single layer there and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .case import Turn

Logits = Callable[[Tensor], Tensor]  # (batch, seq) tokens -> (batch, seq, vocab)


def step(model: nn.Module, tokens: Tensor, *, logits: Logits | None = None) -> Turn:
    """Forward, cross-entropy of the next token, backward and an update by AdamW. It shows the loss."""
    logits = model if logits is None else logits
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def turn() -> Sequence[Tensor]:
        loss = F.cross_entropy(logits(tokens[:, :-1]).flatten(0, 1).float(), tokens[:, 1:].flatten())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return [loss]

    return turn


def layer(module: nn.Module, x: Tensor, *, call: Callable[[Tensor], Tensor] | None = None, bf16: bool = False) -> Turn:
    """There and back, bf16: under autocast. It shows the output and the input's gradient."""
    forward = module if call is None else call
    weight = torch.randn(x.shape, generator=drawn(0)).to(x)  # of the output: a plain sum has gradients of zero in places

    def turn() -> Sequence[Tensor]:
        given = x.detach().requires_grad_()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            y = forward(given)
        (y * weight).sum().backward()
        assert given.grad is not None
        for parameter in module.parameters():
            parameter.grad = None
        return [y, given.grad]

    return turn


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
