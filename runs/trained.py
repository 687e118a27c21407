"""A trained model to use: that of a run, or that of a folder in a published layout, with its tokenizer."""

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
class TrainedModel:
    """A model with weights, on the CPU, in evaluation mode.

    source: the argument that names it, run=FOLDER or weights=FOLDER. tokenizer: None where tokens are no text.
    encode_prompt: text -> tokens, with the special ones that this model expects around a prompt. specials: tokens by role.
    stop_tokens: those at which a text ends.
    """

    source: str
    task: Task
    tokenizer: Tokenizer | None
    encode_prompt: Callable[[str], list[int]]
    specials: dict[str, int]
    stop_tokens: list[int]

    @property
    def model(self) -> nn.Module:
        return self.task.model


def load(*, run: str | None, weights: str | None) -> TrainedModel:
    """Raises ConfigError, RecordError: not exactly one of them; or, in one line, what cannot be loaded and why."""
    if (run is None) == (weights is None):
        raise ConfigError("give run=FOLDER (of a run) or weights=FOLDER (in a published layout), one of them")
    return of_run(Path(run)) if run is not None else of_weights(Path(str(weights)))


def of_run(folder: Path) -> TrainedModel:
    restored = restore(folder)
    tokenizer: Tokenizer | None = getattr(restored.data, "tokenizer", None)
    specials = getattr(restored.data, "specials", {})
    return TrainedModel(
        source=f"run={folder}",
        task=restored.task.eval(),
        tokenizer=tokenizer,
        encode_prompt=lambda text: [] if tokenizer is None else tokenizer.encode(text).tolist(),
        specials=specials,
        stop_tokens=[specials["eos"]] if "eos" in specials else [],
    )


def of_weights(folder: Path) -> TrainedModel:
    """Weights are read in the dtype in which they are stored, and computed with in fp32."""
    theirs = weights.read_config(folder)
    run = composed(weights.overrides(theirs)).run
    with torch.device("meta"):
        model = build_model(run.model, vocab_size=run.size["vocab_size"], seed=run.seed)
    ours = weights.load(folder)
    model.to_empty(device="cpu").load_state_dict({name: t for name, t in ours.items() if not name.startswith("heads.")})
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(f"weights={folder}: no tokenizer.json there, so its tokens cannot be read as text")
    tokenizer = File(path=str(file))
    stop_tokens = _as_list(theirs.get("eos_token_id"))
    first = theirs.get("decoder_start_token_id", theirs.get("bos_token_id"))
    by_role = {"bos": first, "eos": stop_tokens[0] if stop_tokens else None, "pad": theirs.get("pad_token_id")}

    def encode_prompt(text: str) -> list[int]:
        tokens = tokenizer.encode_with_specials(text)
        while isinstance(model, Decoder) and tokens and tokens[-1] in stop_tokens:  # the text is to be continued
            tokens.pop()
        return tokens

    return TrainedModel(
        source=f"weights={folder}",
        task=Task(model=model, heads={}, terms={}).eval(),
        tokenizer=tokenizer,
        encode_prompt=encode_prompt,
        specials=tokenizer.specials | {role: token for role, token in by_role.items() if token is not None},
        stop_tokens=stop_tokens,
    )


def _as_list(tokens: Any) -> list[int]:
    return [] if tokens is None else list(tokens) if isinstance(tokens, list) else [tokens]
