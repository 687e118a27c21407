"""Let a trained model write.

python -m runs.sample run=runs/out/plain/<run> prompt="def f(" max_tokens=100 temperature=0.8 top_p=0.95 seed=0
python -m runs.sample run=... prompt="import " prompt="class " temperature=0 stop=";"     two texts at once, greedy
python -m runs.sample weights=FOLDER prompt="Beijing is"      config.json, safetensors and tokenizer.json of a published model

An encoder-decoder reads the prompt and writes what it has learnt to write about it, until it ends of itself.
"""

from __future__ import annotations

if not __package__:
    raise SystemExit("start it as a module, from the top of the repository: python -m runs.sample")

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from arch.decode import generate
from arch.model import Decoder, EncoderDecoder
from arch.model.encoder_decoder import Reading

from .build.errors import ConfigError
from .command import guarded, parse
from .tokenizer import Tokenizer
from .trained import Loaded, load
from .training.device import pick_device

Write = Callable[[str], object]
UNFINISHED = "\ufffd"  # how decode writes a character of which only the first bytes are there


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
    """Print each prompt and how the model goes on from it; a single text appears while it is drawn.

    Args:   run: folder of a run. weights: instead of it, a folder in a published layout. prompt: texts to go on from, or to
            read. max_tokens: new tokens a text at most. temperature: 0 = greedy. top_k, top_p: null = all tokens. stop: texts
            of one token each that end a text. seed: of the draws.
    Raises: ConfigError, RecordError, ValueError: in one line, what cannot be sampled from and why.
    """
    loaded = load(run=run, weights=weights)
    tokenizer = writing(loaded)
    loaded.model.to(place := pick_device(device))
    begun = beginning(loaded, tokenizer, prompt)
    streams = [Stream(begun.spoken, row, _print if len(prompt) == 1 else _ignore) for row in begun.tokens]
    generate(
        begun.model,
        begun.tokens,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        stop=[*begun.stop, *(stop_token(tokenizer, text) for text in stop or ())],
        generator=torch.Generator(place).manual_seed(seed),
        on_token=lambda row, token: streams[row].add(token),
    )
    for number, stream in enumerate(streams, start=1):
        if len(streams) > 1:
            _print(f"== {number} of {len(streams)}\n")
            stream.shown, stream.write = 0, _print
        stream.close()
        _print("\n")


def writing(loaded: Loaded) -> Tokenizer:
    """The tokenizer of a model that writes text. Raises ConfigError: it does not."""
    if not isinstance(loaded.model, Decoder | EncoderDecoder):
        kind = type(loaded.model).__name__
        raise ConfigError(f"{loaded.origin}: its model is of the kind {kind}, which reads and does not write; take another")
    if loaded.tokenizer is None:
        raise ConfigError(f"{loaded.origin}: the tokens of its data stand for no text; take a run on a text")
    return loaded.tokenizer


class Speaks(Protocol):
    def decode(self, tokens: Sequence[int]) -> str: ...


class Spoken:
    """Tokens as text, without those that stand for none: special ones, and those beyond the tokenizer's vocabulary."""

    def __init__(self, tokenizer: Tokenizer, specials: Mapping[str, int]) -> None:
        self.tokenizer = tokenizer
        self.specials = frozenset(specials.values())

    def decode(self, tokens: Sequence[int]) -> str:
        known = [token for token in tokens if token < self.tokenizer.vocab_size and token not in self.specials]
        return self.tokenizer.decode(known)


class Beginning(NamedTuple):
    """What generate() goes on from. spoken: tells the tokens. stop: tokens at which the model itself ends a text."""

    model: Decoder | Reading
    tokens: list[list[int]]
    spoken: Speaks
    stop: list[int]


def beginning(loaded: Loaded, tokenizer: Tokenizer, prompt: Sequence[str]) -> Beginning:
    """A decoder goes on from the prompts; an encoder-decoder reads them and starts with BOS."""
    model, texts = loaded.model, [loaded.framed(text) for text in prompt]
    if isinstance(model, Decoder):
        return Beginning(model, texts, Spoken(tokenizer, loaded.specials), loaded.ends)
    assert isinstance(model, EncoderDecoder)
    source, positions = sources(texts, fill=loaded.specials["pad"])
    place = model.embedding.weight.device
    reading = model.reading(source.to(place), positions.to(place))
    return Beginning(reading, [[loaded.specials["bos"]] for _ in texts], Spoken(tokenizer, loaded.specials), loaded.ends)


def sources(texts: Sequence[Sequence[int]], *, fill: int) -> tuple[Tensor, Tensor]:
    """Texts side by side, filled up on the right, and their positions. Raises ValueError: a text without a token."""
    for row, text in enumerate(texts):
        if not text:
            raise ValueError(f"prompt {row} is empty: at least 1 token is needed to read")
    width = max(map(len, texts))
    rows = [[*text, *[fill] * (width - len(text))] for text in texts]
    positions = [[*range(len(text)), *[-1] * (width - len(text))] for text in texts]
    return torch.tensor(rows), torch.tensor(positions)


def stop_token(tokenizer: Tokenizer, text: str) -> int:
    """The one token that a text is."""
    tokens: list[int] = tokenizer.encode(text).tolist()
    if len(tokens) != 1:
        raise ConfigError(f"sample.stop={text!r}: {len(tokens)} tokens; exactly 1 is expected")
    return tokens[0]


class Stream:
    """Writes a text while its tokens come, and no character before its last byte is there.

    Args:   tokens: the beginning, written with the first new token. write: takes what is new.
    """

    def __init__(self, tokenizer: Speaks, tokens: Sequence[int], write: Write) -> None:
        self.tokenizer = tokenizer
        self.tokens = list(tokens)
        self.write = write
        self.shown = 0  # characters

    def add(self, token: int) -> None:
        self.tokens.append(token)
        self._show(self.tokenizer.decode(self.tokens).removesuffix(UNFINISHED))

    def close(self) -> None:
        """Nothing more will come: what is unfinished stays so."""
        self._show(self.tokenizer.decode(self.tokens))

    def _show(self, text: str) -> None:
        self.write(text[self.shown :])
        self.shown = max(self.shown, len(text))


def _print(text: str) -> None:
    print(text, end="", flush=True)


def _ignore(text: str) -> None:
    """Several texts at once would be written into each other: they wait for the end."""


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return 0
    try:
        sample(**parse(words, sample))
    except KeyboardInterrupt:
        print()
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
