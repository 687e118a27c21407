"""Let a trained run write.

python -m runs.sample run=runs/out/plain/<run> prompt="def f(" max_tokens=100 temperature=0.8 top_p=0.95 seed=0
python -m runs.sample run=... prompt="import " prompt="class " temperature=0 stop=";"     two texts at once, greedy
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from arch.decode import generate
from arch.model import Decoder

from . import checkpoint, record
from .build import ConfigError, build_model, check_arguments
from .device import pick_device
from .job import load_data
from .tokenizer import Tokenizer
from .train import guarded

Write = Callable[[str], object]
UNFINISHED = "\ufffd"  # how decode writes a character of which only the first bytes are there


def sample(
    *,
    run: str,
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
    """Print each prompt and how the run's model goes on from it; a single text appears while it is drawn.

    Args:   run: folder of a run. prompt: texts to go on from. max_tokens: new tokens a text at most. temperature: 0 = greedy.
            top_k, top_p: null = all tokens. stop: texts of one token each that end a text. seed: of the draws.
    Raises: ConfigError, RecordError, ValueError: in one line, what cannot be sampled from and why.
    """
    model, tokenizer = load_run(Path(run))
    model.to(place := pick_device(device))
    tokens = [tokenizer.encode(text).tolist() for text in prompt]
    streams = [Stream(tokenizer, row, _print if len(prompt) == 1 else _ignore) for row in tokens]
    generate(
        model,
        tokens,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        stop=[stop_token(tokenizer, text) for text in stop or ()],
        generator=torch.Generator(place).manual_seed(seed),
        on_token=lambda row, token: streams[row].add(token),
    )
    for number, stream in enumerate(streams, start=1):
        if len(streams) > 1:
            _print(f"== {number} of {len(streams)}\n")
            stream.shown, stream.write = 0, _print
        stream.close()
        _print("\n")


def load_run(folder: Path) -> tuple[Decoder, Tokenizer]:
    """The model of a run as its last checkpoint left it, on the CPU, and the tokenizer of its text."""
    if not (folder / "config.json").is_file():
        raise ConfigError(f"run={folder}: there is no run (no config.json); give a folder that runs.train has made")
    config = record.read_json(folder / "config.json")
    weights = folder / "checkpoint" / "state.safetensors"
    if not weights.is_file():
        every = config["train"]["checkpoint_every"]
        why = "train.checkpoint_every=null keeps none" if every is None else f"status: {record.status(folder)}"
        raise ConfigError(f"run={folder}: there is no checkpoint ({why}); train it with train.checkpoint_every=0 or more")
    data = load_data(config)
    tokenizer: Tokenizer | None = getattr(data, "tokenizer", None)
    if tokenizer is None:
        name = config["choices"].get("data", type(data).__name__)
        raise ConfigError(f"run={folder}: the tokens of data={name} stand for no text; take a run on a text")
    before = record.read_json(folder / "env.json").get("data_sha256")
    if tokenizer.state() and before != data.sha256:  # bytes learn nothing from a text
        raise ConfigError(
            f"run={folder}: its tokenizer was learnt from other text (SHA-256 {str(before)[:8]}..., now {data.sha256[:8]}...); "
            "bring the old text back"
        )
    model = build_model(config, data.vocab_size)
    checkpoint.load(weights, model=model)
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise ConfigError(f"run={folder}: its weights are not finite, the run has diverged; take another")
    return model, tokenizer


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

    def __init__(self, tokenizer: Tokenizer, tokens: Sequence[int], write: Write) -> None:
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


def parse(words: Sequence[str], target: Callable[..., Any]) -> dict[str, Any]:
    """key=value words as arguments of target, by its annotations; a list's key may come more than once."""
    hints = typing.get_type_hints(target)
    values: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            keys = ", ".join(hint for hint in hints if hint != "return")
            raise ConfigError(f"{word}: not of the form key=value; keys: {keys}")
        kinds = (hints.get(key), *typing.get_args(hints.get(key)))
        if list[str] in kinds:
            values.setdefault(key, []).append(value)
        elif key in values:
            raise ConfigError(f"{key}: given twice, as {values[key]} and as {value}")
        else:
            values[key] = _typed(value, kinds)
    check_arguments(target, values, "sample")
    return values


def _typed(value: str, kinds: Sequence[Any]) -> Any:
    """The value as the first kind that it fits, else as the text it is."""
    if value == "null" and type(None) in kinds:
        return None
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(value)
            except ValueError:
                continue
    return value


def main(words: Sequence[str] | None = None) -> int:
    try:
        sample(**parse(sys.argv[1:] if words is None else words, sample))
    except KeyboardInterrupt:
        print()
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
