"""Look inside a model: its modules and parameters, a drawing of it and, once it is trained, what it does with a text.

python -m runs.inspect model=llama2_7b                           any overrides as of runs.check: nothing is allocated
python -m runs.inspect run=runs/out/plain/<run> text="def f(x):"  attention maps and expert choices, in <run>/inspect/ or out=
python -m runs.inspect run=... source="def f(x)" text="Return x"  of a model that reads one text and writes another
python -m runs.inspect run=... token="def" k=5                    which tokens lie close to it in the embedding table
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from arch import EncoderDecoder

from .check import check, name
from .errors import ConfigError
from .inspection.drawing import drawing
from .inspection.maps import gates, look
from .inspection.neighbours import neighbours
from .inspection.tokens import readable
from .inspection.tree import tree
from .sample import load_run, parse
from .tokenizer import Tokenizer
from .train import collect, guarded

MOST_TOKENS = 512  # a map has as many numbers as there are pairs, for every head of every layer
TRAINED = ("run", "text", "source", "token", "k")  # what is asked of a trained model


def inspect(
    *,
    run: str,
    text: str | None = None,
    source: str | None = None,
    token: str | None = None,
    k: int = 10,
    out: str | None = None,
) -> None:
    """Print the tree and the drawing of a run's model, what lies close to a token, and save what a text makes it do.

    Args:   run: folder of a run. text: what the model reads, or what it writes where it reads a source. source: what an
            encoder-decoder reads. token: a text; each of its tokens is looked up. k: neighbours. out: folder of the figures;
            null = inspect/ in the run's own.
    Raises: ConfigError, RecordError, ValueError: in one line, what cannot be looked at and why.
    """
    model, tokenizer = load(run)
    print(structure(model))
    if token is not None:
        for place in _encoded(tokenizer, "token", token):
            print(f"\n{nearest(model, tokenizer, place, k)}")
    if text is not None:
        figures(model, tokenizer, text, source, Path(run) / "inspect" if out is None else Path(out))
    elif source is not None:
        raise ConfigError(f"source={source!r}: text= is missing, what the model is to write after reading it")


def load(run: str) -> tuple[nn.Module, Tokenizer]:
    """The trained model, and the tokenizer of its text."""
    return load_run(Path(run))


def structure(model: nn.Module) -> str:
    """What there is to see without a text."""
    cost: Any = model.cost(1)  # type: ignore[operator]
    return f"{tree(model)}\n\n{cost.params:,} parameters, {cost.active_params:,} active\n\n{drawing(model)}"


def nearest(model: nn.Module, tokenizer: Tokenizer, token: int, k: int) -> str:
    table: Any = model.embedding.weight  # type: ignore[union-attr]
    found = neighbours(table, token, k)
    lines = [f"  {similarity:6.3f}  {readable(tokenizer, near)!r:16} {near}" for near, similarity in found]
    title = f"nearest to {readable(tokenizer, token)!r} by cosine similarity in the embedding table, with their numbers"
    return "\n".join([title, *lines])


def figures(model: nn.Module, tokenizer: Tokenizer, text: str, source: str | None, folder: Path) -> None:
    """Save the attention maps and the experts' choices of every stack of the model, and say where."""
    from .inspection.figures import attention_figure, experts_figure, save

    if (source is not None) != isinstance(model, EncoderDecoder):
        raise ConfigError(
            f"source={source!r}: an encoder-decoder needs one and no other model reads one; this is a {type(model).__name__}"
        )
    asked = {"text": text} if source is None else {"source": source, "text": text}
    rows = [_encoded(tokenizer, key, value) for key, value in asked.items()]
    words = [[readable(tokenizer, token) for token in row] for row in rows]
    seen = look(model, *(torch.tensor([row]) for row in rows))
    drawn: dict[str, Callable[[], Any]] = {}
    for stack, reads in (("encoder", 0), ("decoder", -1), ("", 0)):
        maps = {name: weights for name, weights in seen.attention.items() if stack_of(name) == stack}
        within = {layer(name): weights.numpy() for name, weights in maps.items() if name not in seen.across}
        across = {layer(name): weights.numpy() for name, weights in maps.items() if name in seen.across}
        chosen = {layer(name): gates(routing).numpy() for name, routing in seen.routings.items() if stack_of(name) == stack}
        ending = f"_{stack}" if stack else ""
        if within:
            drawn[f"attention{ending}"] = partial(attention_figure, within, words[reads], words[reads])
        if across:
            drawn["attention_across"] = partial(attention_figure, across, words[reads], words[0])
        if chosen:
            drawn[f"experts{ending}"] = partial(experts_figure, chosen, words[reads])
    for kind, count in Counter(seen.without.values()).items():
        print(f"\n{kind} ({count} of {len(seen.without) + len(seen.attention)} mixers) has no weight for each pair of tokens")
    for file in save(drawn, folder):
        print(file)


def layer(name: str) -> str:
    """encoder.layers.3.mixer -> layer 3"""
    return f"layer {name.rpartition('layers.')[2].split('.', maxsplit=1)[0]}"


def stack_of(name: str) -> str:
    """encoder.layers.3.mixer -> encoder; layers.3.mixer -> nothing"""
    return name.rpartition("layers.")[0].rstrip(".")


def _encoded(tokenizer: Tokenizer, key: str, text: str) -> list[int]:
    tokens: list[int] = tokenizer.encode(text).tolist()
    if not 0 < len(tokens) <= MOST_TOKENS:
        raise ConfigError(f"{key}: {len(tokens)} tokens; from 1 to {MOST_TOKENS} are expected")
    return tokens


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    asked = [word for word in words if word.split("=", maxsplit=1)[0] in TRAINED]
    if any(word.startswith("run=") for word in asked):
        inspect(**parse(words, inspect))
        return 0
    if asked:
        raise ConfigError(f"{asked[0]}: only a trained model can tell; give its folder, run=...")
    points = collect()
    for refusal in points.refused:
        raise refusal
    for point in points.points:
        print(f"{name(point)}\n{structure(check(point))}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
