"""Our model of a reference model, built through the config system, with its weights."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from runs.build.model import build_model
from runs.compose.compose import composed
from runs.job.run import Run
from runs.published.family import names, overrides


def built(peer: nn.Module) -> Any:
    """With weights of its own."""
    run = made(tuple(overrides(peer.config.to_dict())))
    return build_model(run.model, vocab_size=2, seed=0).eval()


@functools.cache
def made(words: tuple[str, ...]) -> Run:
    """Of a family's words, not all of which each of its models reads."""
    return composed(words).run


def twin(peer: nn.Module) -> Any:
    """With the reference's weights."""
    model = built(peer)
    model.load_state_dict({name: t for name, t in our_state(peer).items() if not name.startswith("heads.")})
    return model


def our_state(peer: nn.Module) -> dict[str, Tensor]:
    theirs = peer.state_dict()
    return names(peer.config.to_dict(), theirs).to_ours(theirs)


def their_state(peer: nn.Module, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    return names(peer.config.to_dict(), ours).to_theirs(ours)


def close(a: Tensor, b: Tensor) -> None:
    """Logits agree within 1e-4, whatever their size."""
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def left_padded(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Which tokens are real, and their positions: negative where they are not."""
    width = max(lengths)
    starts = torch.tensor([[width - length] for length in lengths])
    offset = torch.arange(width) - starts
    return offset >= 0, offset


def right_padded(lengths: list[int]) -> tuple[Tensor, Tensor]:
    positions = torch.arange(max(lengths)).expand(len(lengths), -1)
    real = positions < torch.tensor(lengths)[:, None]
    return real, positions.where(real, -1)
