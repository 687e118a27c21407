"""What tests share: runs composed without a command line, models built from them, options found by globbing conf/."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor, nn

from runs.build.groups import KEYS
from runs.build.model import build_model
from runs.compose.compose import of_words
from runs.compose.explain import CONF
from runs.job.run import Run

VOCAB = 61
TINY = (f"hydra.searchpath=[file://{Path(__file__).with_name('conf')}]", "size=tiny")
COMPANIONS = {"router": ("ffn=moe",)}  # what an option needs beside it to be used at all


def options(group: str) -> list[str]:
    """Every option of a config group: a new yaml is tested without a new test."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


BLOCK_GROUPS = tuple(name for name, key in KEYS.items() if key.layer and len(options(name)) > 1 and name != "size")


def config(*words: str, directory: Path = CONF) -> Run:
    """The run of a command line."""
    if directory != CONF or any(word.startswith(("run=", "weights=")) for word in words):
        return of_words(words, directory)
    return _composed(words)


@functools.cache
def _composed(words: tuple[str, ...]) -> Run:
    """Kept, since Hydra takes a second for what many tests ask for."""
    return of_words(words)


def model_of(run: Run, vocab_size: int = VOCAB) -> nn.Module:
    return build_model(run.model, vocab_size=vocab_size, seed=run.seed)


def tiny_model(*words: str, directory: Path = CONF) -> nn.Module:
    """A model of a few thousand parameters in evaluation mode, the same at every call."""
    return model_of(config(*TINY, *words, directory=directory)).eval()


def tokens(batch: int, seq: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (batch, seq), generator=torch.Generator().manual_seed(seed))
