"""Look inside a model: its modules and parameters, a drawing of it and, once it is trained, what it does with a text.

python -m runs.look model=llama2_7b                            any overrides as of runs.check: nothing is allocated
python -m runs.look run=runs/out/plain/<run> text="def f(x):"  attention maps and expert choices, in <run>/inspect/ or out=
python -m runs.look run=... source="def f(x)" text="Return x"  of a model that reads one text and writes another
python -m runs.look run=... token="def" k=5                    which tokens lie close to it in the embedding table
"""

from __future__ import annotations

if not __package__:
    raise SystemExit("start it as a module, from the top of the repository: python -m runs.look")

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from arch import Encoder, EncoderDecoder

from .build.errors import ConfigError
from .command import collect, guarded, parse
from .inspection.drawing import drawing
from .inspection.maps import gates, look
from .inspection.neighbours import neighbours
from .inspection.tokens import Reader
from .inspection.tree import tree
from .job.check import check
from .objective import Task
from .trained import load

MOST_TOKENS = 512  # a map has as many numbers as there are pairs, for every head of every layer
TRAINED = ("run", "weights", "text", "source", "token", "k")  # what is asked of a trained model


def inspect(
    *,
    run: str | None = None,
    weights: str | None = None,
    text: str | None = None,
    source: str | None = None,
    token: str | None = None,
    k: int = 10,
    out: str | None = None,
) -> None:
    """Print the tree and the drawing of a trained model, what lies close to a token, and save what a text makes it do.

    Args:   run: folder of a run. weights: instead of it, a folder in a published layout. text: what the model reads, or what
            it writes where it reads a source. source: what an encoder-decoder reads. token: a text; each of its tokens is
            looked up. k: neighbours. out: folder of the figures; null = inspect/ in the run's own, or here.
    Raises: ConfigError, RecordError, ValueError: in one line, what cannot be looked at and why.
    """
    loaded = load(run=run, weights=weights)
    task, reader = loaded.task, Reader(loaded.tokenizer, loaded.specials)
    print(structure(task))
    if token is not None:
        for one in words(reader, "token", token):
            print(f"\n{nearest(task.model, reader, one, k)}")
    if text is not None:
        figures(task.model, reader, text, source, Path(out or Path(run or "") / "inspect"))
    elif source is not None:
        raise ConfigError(f"source={source!r}: text= is missing, what the model is to write after reading it")


def structure(task: Task) -> str:
    """What there is to see without a text."""
    model, total = task.model, sum(parameter.numel() for parameter in task.model.parameters())
    cost: Any = model.cost(1)  # type: ignore[operator]
    idle = cost.params - cost.active_params
    told = [tree(model), f"{total:,} parameters, {total - idle:,} of them active for a token"]
    if len(task.heads):
        told.append(tree(task.heads, "the objective's heads"))
    return "\n\n".join([*told, drawing(model)])


def nearest(model: nn.Module, reader: Reader, token: int, k: int) -> str:
    table: Any = model.embedding.weight  # type: ignore[union-attr]
    found = [(f"'{reader.name(near)}'", near, similarity) for near, similarity in neighbours(table, token, k)]
    width = max(len(text) for text, _, _ in found)
    lines = [f"  {similarity:6.3f}  {text:{width}}  {near}" for text, near, similarity in found]
    title = f"nearest to '{reader.name(token)}' (token {token}) in the embedding table, by cosine similarity"
    return "\n".join([title, *lines])


def figures(model: nn.Module, reader: Reader, text: str, source: str | None, folder: Path) -> None:
    """Save the attention maps and the experts' choices of every stack of the model, and say where."""
    from .inspection.figures import attention_figure, experts_figure, save

    if (source is not None) != isinstance(model, EncoderDecoder):
        kind = type(model).__name__
        raise ConfigError(f"source={source!r}: an EncoderDecoder needs one, other models read none; this one is a {kind}")
    rows = [reader.marked(words(reader, "text", text), around=isinstance(model, Encoder), before=source is not None)]
    if source is not None:
        rows.insert(0, words(reader, "source", source))
    seen = look(model, *(torch.tensor([row]) for row in rows))
    names = [[reader.name(token) for token in row] for row in rows]
    drawn: dict[str, Callable[[], Any]] = {}
    looks = sorted(int(layer(name).split()[1]) for name in seen.across)

    def label(name: str) -> str:
        """A decoder's layer ends in the block that looks across."""
        number = int(layer(name).split()[1])
        return f"layer {sum(look < number for look in looks)}" if stack_of(name) == "decoder" and looks else f"layer {number}"

    for stack, reads in (("encoder", 0), ("decoder", -1), ("", 0)):
        maps = {name: weights for name, weights in seen.attention.items() if stack_of(name) == stack}
        within = {label(name): weights.numpy() for name, weights in maps.items() if name not in seen.across}
        across = {label(name): weights.numpy() for name, weights in maps.items() if name in seen.across}
        chosen = {label(name): gates(routing).numpy() for name, routing in seen.routings.items() if stack_of(name) == stack}
        ending = f"_{stack}" if stack else ""
        if within:
            drawn[f"attention{ending}"] = partial(attention_figure, within, names[reads], names[reads])
        if across:
            drawn["attention_across"] = partial(attention_figure, across, names[reads], names[0])
        if chosen:
            drawn[f"experts{ending}"] = partial(experts_figure, chosen, names[reads])
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


def words(reader: Reader, key: str, text: str) -> list[int]:
    """The tokens of a text that an argument holds."""
    tokens = reader.encode(text)
    if not 0 < len(tokens) <= MOST_TOKENS:
        raise ConfigError(f"{key}: {len(tokens)} tokens; from 1 to {MOST_TOKENS} are expected")
    return tokens


def main(given: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if given is None else given
    if {"-h", "--help"} & set(given):
        print(__doc__)
        return 0
    asked = [word for word in given if word.split("=", maxsplit=1)[0] in TRAINED]
    if any(word.startswith(("run=", "weights=")) for word in asked):
        inspect(**parse(given, inspect))
        return 0
    if asked:
        raise ConfigError(f"{asked[0]}: only a trained model can tell; give its folder, run=... or weights=...")
    command = collect()
    for refusal in command.refused:
        raise refusal
    for run in command.runs:
        print(f"{run.title}\n{structure(check(run))}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
