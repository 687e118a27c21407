"""A model to use: that of a run, or that of a folder in a published layout, with what reads and writes its tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from arch.model import Decoder

from .build.errors import ConfigError
from .build.model import build_model
from .compose.compose import composed
from .job.start import restore
from .objective import Task
from .published import folder as weights
from .tokenizer import File, Tokenizer


@dataclass(frozen=True)
class Loaded:
    """A model with weights, on the CPU, in evaluation mode.

    origin: as a command names it. tokenizer: None where tokens stand for no text. framed: a text as this model expects it,
    with the special tokens around it, if any. specials: tokens by what they are for. ends: tokens at which a text ends.
    """

    origin: str
    task: Task
    tokenizer: Tokenizer | None
    framed: Callable[[str], list[int]]
    specials: dict[str, int]
    ends: list[int]

    @property
    def model(self) -> nn.Module:
        return self.task.model


def load(*, run: str | None, weights: str | None) -> Loaded:
    """Raises ConfigError, RecordError: not exactly one of them; or, in one line, what cannot be loaded and why."""
    if (run is None) == (weights is None):
        raise ConfigError("give run=FOLDER (of a run) or weights=FOLDER (in a published layout), one of them")
    return of_run(Path(run)) if run is not None else of_weights(Path(str(weights)))


def of_run(folder: Path) -> Loaded:
    restored = restore(folder)
    tokenizer: Tokenizer | None = getattr(restored.data, "tokenizer", None)
    specials = getattr(restored.data, "specials", {})
    return Loaded(
        origin=f"run={folder}",
        task=restored.task.eval(),
        tokenizer=tokenizer,
        framed=lambda text: [] if tokenizer is None else tokenizer.encode(text).tolist(),
        specials=specials,
        ends=[specials["eos"]] if "eos" in specials else [],
    )


def of_weights(folder: Path) -> Loaded:
    """Numbers are read as they are stored, and computed with in fp32."""
    theirs = weights.read_config(folder)
    run = composed(weights.overrides(theirs)).run
    with torch.device("meta"):
        model = build_model(run.model, vocab_size=run.size["vocab_size"], seed=run.seed)
    ours = weights.load(folder)
    model.to_empty(device="cpu").load_state_dict({name: t for name, t in ours.items() if not name.startswith("heads.")})
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(f"weights={folder}: no tokenizer.json there, so its tokens stand for nothing that can be read")
    tokenizer = File(path=str(file))
    ends = _listed(theirs.get("eos_token_id"))
    begins = theirs.get("decoder_start_token_id", theirs.get("bos_token_id"))
    named = {"bos": begins, "eos": ends[0] if ends else None, "pad": theirs.get("pad_token_id")}

    def framed(text: str) -> list[int]:
        tokens = tokenizer.framed(text)
        while isinstance(model, Decoder) and tokens and tokens[-1] in ends:  # the text is to go on
            tokens.pop()
        return tokens

    return Loaded(
        origin=f"weights={folder}",
        task=Task(model=model, heads={}, terms={}).eval(),
        tokenizer=tokenizer,
        framed=framed,
        specials=tokenizer.specials | {role: token for role, token in named.items() if token is not None},
        ends=ends,
    )


def _listed(tokens: Any) -> list[int]:
    return [] if tokens is None else list(tokens) if isinstance(tokens, list) else [tokens]
