"""A trained model to use: that of a run, or that of a folder in a published layout, with its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from arch.model import Decoder, EncoderDecoder

from .build.errors import ConfigError
from .build.model import build_model
from .compose.compose import composed
from .job.checkpoint import misfit
from .job.start import restore, run_folder
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
    return of_run(run_folder(Path(run))) if run is not None else of_weights(Path(str(weights)))


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
    with weights.of_folder(folder):
        return _of_weights(folder)


def _of_weights(folder: Path) -> TrainedModel:
    theirs = weights.read_config(folder)
    model = empty_model(theirs)
    if difference := misfit(_of_the_body(weights.shapes(folder)), model.state_dict()):
        raise ConfigError(f"its weights are of another model than its {weights.CONFIG} says: {difference}")
    vocab_size: int = model.embedding.weight.shape[0]  # type: ignore[index, union-attr, assignment]
    tokenizer = File(path=str(weights.tokenizer_file(folder)))
    if tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            f"its {weights.TOKENIZER} has {tokenizer.vocab_size:,} tokens, but its model knows {vocab_size:,}; "
            "get the one that belongs to it"
        )

    def tokens(key: str) -> list[int]:
        return weights.token_ids(theirs, key, vocab_size=vocab_size)

    stop_tokens = tokens("eos_token_id")
    found = {
        "bos": tokens("decoder_start_token_id") or tokens("bos_token_id"),
        "eos": stop_tokens,
        "pad": tokens("pad_token_id"),
    }
    specials = tokenizer.specials | {role: ids[0] for role, ids in found.items() if ids}
    if isinstance(model, EncoderDecoder) and (missing := {"bos", "pad"} - specials.keys()):
        raise ConfigError(f"neither its {weights.CONFIG} nor its {weights.TOKENIZER} says which token is {min(missing)}")
    model.to_empty(device="cpu").load_state_dict(_of_the_body(weights.load(folder)))

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
        specials=specials,
        stop_tokens=stop_tokens,
    )


def empty_model(config: weights.Config) -> nn.Module:
    """The model of a config.json, on the meta device. Raises ConfigError: there is no such model."""
    run = composed(weights.overrides(config)).run
    with torch.device("meta"):
        return build_model(run.model, vocab_size=run.size["vocab_size"], seed=run.seed)


def _of_the_body(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith("heads.")}
