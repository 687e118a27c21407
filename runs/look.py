"""Inspect a model: its modules and parameters, a drawing of it and, once it is trained, what it does with a text.

python -m runs.look model=llama2_7b                            any overrides as of runs.check: nothing is allocated
python -m runs.look run=runs/out/plain/<run> text="def f(x):"  attention maps and expert choices, in <run>/inspect/ or out=
python -m runs.look run=... source="def f(x)" text="Return x"  of an encoder-decoder
python -m runs.look run=... token="def" k=5                    the nearest tokens in the embedding table
"""

from __future__ import annotations

if not __package__:
    raise SystemExit("start it as a module, from the top of the repository: python -m runs.look")
if __name__ == "__main__":
    from .usage import answer_help

    answer_help(__doc__, composes=True)  # before torch is imported

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
from .inspection.maps import capture, gates
from .inspection.neighbours import neighbours
from .inspection.tokens import ReadableTokens
from .inspection.tree import tree
from .job.check import check
from .job.start import run_folder
from .objective import Task
from .trained import load

MOST_TOKENS = 512  # a map has as many numbers as there are pairs, for every head of every layer
TRAINED = ("run", "weights", "text", "source", "token", "k")  # arguments for a trained model alone


def look(
    *,
    run: str | None = None,
    weights: str | None = None,
    text: str | None = None,
    source: str | None = None,
    token: str | None = None,
    k: int = 10,
    out: str | None = None,
) -> None:
    """Print the tree and the drawing of a trained model, the nearest tokens of a token, and save figures of a text.

    Args:   run: folder of a run. weights: instead of it, a folder in a published layout. text: the model's input, or the
            target of an encoder-decoder. source: of an encoder-decoder. token: a text; each of its tokens is
            looked up. k: neighbours. out: folder of the figures; null = inspect/ in the run's own, or here.
    Raises: ConfigError, RecordError, ValueError: in one line, what cannot be inspected and why.
    """
    trained = load(run=run, weights=weights)
    task, tokens = trained.task, ReadableTokens(trained.tokenizer, trained.specials)
    print(structure(task))
    if token is not None:
        for one in encode_argument(tokens, "token", token):
            print(f"\n{nearest_tokens(task.model, tokens, one, k)}")
    if text is not None:
        save_figures(task.model, tokens, text, source, Path(out or (run_folder(Path(run)) if run else Path()) / "inspect"))
    elif source is not None:
        raise ConfigError(f"source={source!r}: text= is missing, the target that goes with it")


def structure(task: Task) -> str:
    """Tree, number of parameters and drawing."""
    model, total = task.model, sum(parameter.numel() for parameter in task.model.parameters())
    cost: Any = model.cost(1)  # type: ignore[operator]
    inactive = cost.params - cost.active_params
    sections = [tree(model), f"{total:,} parameters, {total - inactive:,} of them active for a token"]
    if len(task.heads):
        sections.append(tree(task.heads, "the objective's heads"))
    return "\n\n".join([*sections, drawing(model)])


def nearest_tokens(model: nn.Module, tokens: ReadableTokens, token: int, k: int) -> str:
    table: Any = model.embedding.weight  # type: ignore[union-attr]
    found = [(f"'{tokens.label(near)}'", near, similarity) for near, similarity in neighbours(table, token, k)]
    width = max(len(text) for text, _, _ in found)
    lines = [f"  {similarity:6.3f}  {text:{width}}  {near}" for text, near, similarity in found]
    title = f"nearest to '{tokens.label(token)}' (token {token}) in the embedding table, by cosine similarity"
    return "\n".join([title, *lines])


def save_figures(model: nn.Module, tokens: ReadableTokens, text: str, source: str | None, folder: Path) -> None:
    """Save the attention maps and the experts' choices of every stack of the model, and say where."""
    from .inspection.figures import attention_figure, experts_figure, save

    if (source is not None) != isinstance(model, EncoderDecoder):
        kind = type(model).__name__
        raise ConfigError(f"source={source!r}: an EncoderDecoder needs one, other models read none; this one is a {kind}")
    row = encode_argument(tokens, "text", text)
    rows = [tokens.with_specials(row, around=isinstance(model, Encoder), before=source is not None)]
    if source is not None:
        rows.insert(0, encode_argument(tokens, "source", source))
    captured = capture(model, *(torch.tensor([row]) for row in rows))
    labels = [[tokens.label(token) for token in row] for row in rows]
    drawn: dict[str, Callable[[], Any]] = {}
    cross = sorted(layer_number(name) for name in captured.cross)

    def label(name: str) -> str:
        """A decoder's layer ends in the block of cross-attention."""
        block = layer_number(name)
        return f"layer {sum(other < block for other in cross) if stack_of(name) == 'decoder' and cross else block}"

    for stack, row_of in (("encoder", 0), ("decoder", -1), ("", 0)):
        maps = {name: weights for name, weights in captured.attention.items() if stack_of(name) == stack}
        within = {label(name): weights.numpy() for name, weights in maps.items() if name not in captured.cross}
        across = {label(name): weights.numpy() for name, weights in maps.items() if name in captured.cross}
        chosen = {label(name): gates(routing).numpy() for name, routing in captured.routings.items() if stack_of(name) == stack}
        ending = f"_{stack}" if stack else ""
        if within:
            drawn[f"attention{ending}"] = partial(attention_figure, within, labels[row_of], labels[row_of])
        if across:
            drawn["attention_across"] = partial(attention_figure, across, labels[row_of], labels[0])
        if chosen:
            drawn[f"experts{ending}"] = partial(experts_figure, chosen, labels[row_of])
    for kind, count in Counter(captured.without_weights.values()).items():
        total = len(captured.without_weights) + len(captured.attention)
        print(f"\n{kind} ({count} of {total} mixers) has no weight for each pair of tokens")
    for file in save(drawn, folder):
        print(file)


def layer_number(name: str) -> int:
    """encoder.layers.3.mixer -> 3"""
    return int(name.rpartition("layers.")[2].split(".", maxsplit=1)[0])


def stack_of(name: str) -> str:
    """encoder.layers.3.mixer -> encoder; layers.3.mixer -> nothing"""
    return name.rpartition("layers.")[0].rstrip(".")


def encode_argument(tokens: ReadableTokens, key: str, text: str) -> list[int]:
    """The tokens of the text of an argument. Raises ConfigError: none, or too many for a figure."""
    row = tokens.encode(text)
    if not 0 < len(row) <= MOST_TOKENS:
        raise ConfigError(f"{key}: {len(row)} tokens; from 1 to {MOST_TOKENS} are expected")
    return row


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    of_trained = [argument for argument in argv if argument.split("=", maxsplit=1)[0] in TRAINED]
    if any(argument.startswith(("run=", "weights=")) for argument in of_trained):
        look(**parse(argv, look))
        return 0
    if of_trained:
        raise ConfigError(f"{of_trained[0]}: this needs a trained model; give its folder, run=... or weights=...")
    command = collect(reads=["size.max_seq"])
    for refusal in command.refused:
        raise refusal
    for run in command.runs:
        print(f"{run.title}\n{structure(check(run).task)}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
