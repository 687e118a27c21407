"""Our model of a reference model, built through the config system, with its weights."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from runs.build import build_model
from runs.families import family
from tests.lab import config


def built(peer: nn.Module) -> Any:
    """With weights of its own."""
    return build_model(composed(*family(peer.config.to_dict()).overrides), vocab_size=2).eval()


composed = functools.cache(config)


def twin(peer: nn.Module) -> Any:
    """With the reference's weights."""
    model = built(peer)
    model.load_state_dict({name: t for name, t in our_state(peer).items() if not name.startswith("heads.")})
    return model


def our_state(peer: nn.Module) -> dict[str, Tensor]:
    theirs = peer.state_dict()
    return family(peer.config.to_dict()).names(theirs).to_ours(theirs)


def their_state(peer: nn.Module, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    return family(peer.config.to_dict()).names(ours).to_theirs(ours)


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
    place = torch.arange(max(lengths)).expand(len(lengths), -1)
    real = place < torch.tensor(lengths)[:, None]
    return real, place.where(real, -1)
