"""What tests share: configs composed without a command line, models built from them, options found by globbing conf/."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runs.build.objects import build_model
from runs.compose.compose import of_words
from runs.compose.explain import CONF

VOCAB = 61
TINY = ("size.d_model=24", "size.n_layers=2", "size.n_heads=4", "size.d_ff=48", "size.max_seq=128", "size.n_experts=4")
COMPANIONS = {"router": ("ffn=moe",)}  # what an option needs beside it to be used at all


def options(group: str) -> list[str]:
    """Every option of a config group: a new yaml is tested without a new test."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def config(*overrides: str, directory: Path = CONF) -> dict[str, Any]:
    """The resolved config of a command line."""
    if directory != CONF or any(word.startswith(("run=", "weights=")) for word in overrides):
        return of_words(overrides, directory)
    return copy.deepcopy(_composed(overrides))


@functools.cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Kept, since Hydra takes a second for what many tests ask for."""
    return of_words(overrides)


def tiny_model(*overrides: str, directory: Path = CONF) -> nn.Module:
    """A model of a few thousand parameters in evaluation mode, the same at every call."""
    return build_model(config(*TINY, *overrides, directory=directory), VOCAB).eval()


def tokens(batch: int, seq: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (batch, seq), generator=torch.Generator().manual_seed(seed))
