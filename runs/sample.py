"""Generate text with a trained model.

python -m runs.sample run=runs/out/plain/<run> prompt="def f(" max_tokens=100 temperature=0.8 top_p=0.95 seed=0
python -m runs.sample run=... prompt="import " prompt="class " temperature=0 stop=";"     two texts at once, greedy
python -m runs.sample weights=FOLDER prompt="Beijing is"      config.json, safetensors and tokenizer.json of a published model

An encoder-decoder takes the prompt for its source and generates the target, until a stop token.
"""

from __future__ import annotations

if not __package__:
    raise SystemExit("start it as a module, from the top of the repository: python -m runs.sample")
if __name__ == "__main__":
    from .usage import answer_help

    answer_help(__doc__)  # before torch is imported

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from arch.decode import generate
from arch.model import Decoder, EncoderDecoder
from arch.model.encoder_decoder import ConditionedDecoder

from .build.errors import ConfigError
from .command import guarded, parse
from .job.stop import Stopped
from .tokenizer import Tokenizer
from .trained import TrainedModel, load
from .training.device import pick_device

Write = Callable[[str], object]
UNFINISHED = "\ufffd"  # how decode writes a character of which only the first bytes are there yet


def sample(
    *,
    run: str | None = None,
    weights: str | None = None,
    prompt: list[str],
    max_tokens: int = 100,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    stop: list[str] | None = None,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Print each prompt and its continuation; a single text appears while it is generated.

    Args:   run: folder of a run. weights: instead of it, a folder in a published layout. prompt: texts to continue, or the
            sources of an encoder-decoder. max_tokens: new tokens a text at most. temperature: 0 = greedy. top_k, top_p: null =
            all tokens. stop: texts of one token each that end a text. seed: of the sampling.
    Raises: ConfigError, RecordError, ValueError: in one line, what cannot be sampled from and why.
    """
    trained = load(run=run, weights=weights)
    tokenizer = text_tokenizer(trained)
    trained.model.to(used := pick_device(device))
    model, prompts = conditioned(trained, prompt)
    detokenizer = Detokenizer(tokenizer, trained.specials)
    streams = [TextStream(detokenizer, row, _print if len(prompt) == 1 else _ignore) for row in prompts]
    generate(
        model,
        prompts,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        stop=[*trained.stop_tokens, *(stop_token(tokenizer, text) for text in stop or ())],
        generator=torch.Generator(used).manual_seed(seed),
        on_token=lambda row, token: streams[row].add(token),
    )
    for number, stream in enumerate(streams, start=1):
        if len(streams) > 1:
            _print(f"== {number} of {len(streams)}\n")
            stream.shown, stream.write = 0, _print
        stream.close()
        _print("\n")


def text_tokenizer(trained: TrainedModel) -> Tokenizer:
    """The tokenizer of a model that generates text. Raises ConfigError: it does not."""
    if not isinstance(trained.model, Decoder | EncoderDecoder):
        kind = type(trained.model).__name__
        raise ConfigError(f"{trained.source}: its model is of the kind {kind}, which does not generate text; take another")
    if trained.tokenizer is None:
        raise ConfigError(f"{trained.source}: the tokens of its data are no text; take a run on a text")
    return trained.tokenizer


class SupportsDecode(Protocol):
    def decode(self, tokens: Sequence[int]) -> str: ...


class Detokenizer:
    """Tokens to text, without those that have none: special ones, and those beyond the tokenizer's vocabulary."""

    def __init__(self, tokenizer: Tokenizer, specials: Mapping[str, int]) -> None:
        self.tokenizer = tokenizer
        self.specials = frozenset(specials.values())

    def decode(self, tokens: Sequence[int]) -> str:
        ordinary = [token for token in tokens if token < self.tokenizer.vocab_size and token not in self.specials]
        return self.tokenizer.decode(ordinary)


def conditioned(trained: TrainedModel, texts: Sequence[str]) -> tuple[Decoder | ConditionedDecoder, list[list[int]]]:
    """The decoder and the tokens that it continues: the prompts, or BOS where an encoder-decoder has them for its sources."""
    model, prompts = trained.model, [trained.encode_prompt(text) for text in texts]
    if isinstance(model, Decoder):
        return model, prompts
    assert isinstance(model, EncoderDecoder)
    source, positions = padded(prompts, fill=trained.specials["pad"])
    device = model.embedding.weight.device
    return model.condition(source.to(device), positions.to(device)), [[trained.specials["bos"]] for _ in texts]


def padded(texts: Sequence[Sequence[int]], *, fill: int) -> tuple[Tensor, Tensor]:
    """Texts as rows of one width, padded on the right, and their positions. Raises ValueError: a text without a token."""
    for row, text in enumerate(texts):
        if not text:
            raise ValueError(f"prompt {row} is empty: a source needs at least 1 token")
    width = max(map(len, texts))
    rows = [[*text, *[fill] * (width - len(text))] for text in texts]
    positions = [[*range(len(text)), *[-1] * (width - len(text))] for text in texts]
    return torch.tensor(rows), torch.tensor(positions)


def stop_token(tokenizer: Tokenizer, text: str) -> int:
    """The token of a text that is exactly one."""
    tokens: list[int] = tokenizer.encode(text).tolist()
    if len(tokens) != 1:
        raise ConfigError(f"sample.stop={text!r}: {len(tokens)} tokens; exactly 1 is expected")
    return tokens[0]


class TextStream:
    """Writes a text while its tokens come, and no character before its last byte is there.

    Args:   tokens: the prompt, written with the first new token. write: called with the new characters.
    """

    def __init__(self, tokenizer: SupportsDecode, tokens: Sequence[int], write: Write) -> None:
        self.tokenizer = tokenizer
        self.tokens = list(tokens)
        self.write = write
        self.shown = 0  # characters

    def add(self, token: int) -> None:
        self.tokens.append(token)
        self._show(self.tokenizer.decode(self.tokens).removesuffix(UNFINISHED))

    def close(self) -> None:
        """The end of the text: an unfinished character is written as it is."""
        self._show(self.tokenizer.decode(self.tokens))

    def _show(self, text: str) -> None:
        self.write(text[self.shown :])
        self.shown = max(self.shown, len(text))


def _print(text: str) -> None:
    print(text, end="", flush=True)


def _ignore(text: str) -> None:
    """Several texts at once would be mixed up: they are written at the end."""


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    try:
        sample(**parse(argv, sample))
    except Stopped as stopped:  # who reads has read enough
        print()
        return stopped.code
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
