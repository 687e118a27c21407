"""Stacks of different layers in one line: "3*mamba2, gqa" or "2*(mamba, attn_moe)"; "a+b" is one layer made of two blocks."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

from .errors import ConfigError
from .sizes import MOST_LAYERS

DEEPEST = 20  # brackets in one another

TOKEN = re.compile(r"(?:(\d+)\s*\*|([A-Za-z_][\w+]*)|([(),]))\s*")


def parse(text: str) -> list[tuple[str, ...]]:
    """The layers that a line stands for, first to last, each as the names of its blocks.

    stack = item, item ...    item = [count *] name | [count *] (stack)    name = block[+block ...]

    Raises: ConfigError: what cannot be read, and where.
    """
    if not isinstance(text, str):
        raise ConfigError(f"layers={text!r}: a line of layers is expected, as in '3*mamba2, gqa'")
    tokens, place = [], len(text) - len(text.lstrip())
    while place < len(text):
        found = TOKEN.match(text, place)
        if found is None:
            raise _unread(text, place)
        tokens.append((found.lastindex, found[found.lastindex or 0], place))
        place = found.end()
    layers, end = _stack(text, tokens, 0)
    if end < len(tokens):
        raise _unread(text, tokens[end][2])
    return layers


def tiled(layers: list[tuple[str, ...]], n_layers: int) -> list[str]:
    """The blocks of n_layers layers: the line again and again, cut where it is longer."""
    repeated = (layers * -(-n_layers // len(layers)))[:n_layers]
    return [block for layer in repeated for block in layer]


def spelt(line: Sequence[tuple[str, ...]], n_layers: int) -> str:
    """The shortest line for the layers of a whole model: what repeats is said once, neighbours are counted."""
    layers = ["+".join(line[i % len(line)]) for i in range(n_layers)]
    period = next(n for n in range(1, len(layers) + 1) if all(layers[i] == layers[i % n] for i in range(len(layers))))
    runs = [(name, len(list(same))) for name, same in itertools.groupby(layers[:period])]
    return ", ".join(name if n == 1 else f"{n}*{name}" for name, n in runs)


def names(model: Any, n_layers: int | None = None) -> list[str | None]:
    """The layers that the stacks of a model name, each once; None stands for the block. n_layers: only those it reaches."""
    found: list[str | None] = []
    for key, node in model.items() if isinstance(model, dict) else ():
        if key != "layers":
            found += names(node, n_layers)
        elif node is None:
            found.append(None)
        else:
            layers = parse(node)
            found += tiled(layers, len(layers) if n_layers is None else n_layers)
    return list(dict.fromkeys(found))


def _stack(text: str, tokens: list[tuple[int | None, str, int]], i: int, depth: int = 0) -> tuple[list[tuple[str, ...]], int]:
    layers, i = _item(text, tokens, i, depth)
    while i < len(tokens) and tokens[i][1] == ",":
        more, i = _item(text, tokens, i + 1, depth)
        layers = _within(text, 1, layers + more)
    return layers, i


def _item(text: str, tokens: list[tuple[int | None, str, int]], i: int, depth: int) -> tuple[list[tuple[str, ...]], int]:
    kind, word, place = tokens[i] if i < len(tokens) else (None, "", len(text))
    if depth > DEEPEST:
        raise ConfigError(f"{_said(text)}: brackets and counts stand more than {DEEPEST} deep; write it flatter")
    if kind == 1:
        layers, i = _item(text, tokens, i + 1, depth + 1)
        if not word.strip("0"):
            raise ConfigError(f"{_said(text)}: {word}* at character {place + 1} repeats nothing; a count from 1 is expected")
        return _within(text, int(word.lstrip("0")[:20]), layers), i  # a count of more digits is too large as well
    if kind == 2 and all(word.split("+")):
        return [tuple(word.split("+"))], i + 1
    if word == "(":
        layers, i = _stack(text, tokens, i + 1, depth + 1)
        if i < len(tokens) and tokens[i][1] == ")":
            return layers, i + 1
        place = tokens[i][2] if i < len(tokens) else len(text)
    raise _unread(text, place)


def _within(text: str, count: int, layers: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The layers, that many times."""
    if count * len(layers) > MOST_LAYERS:
        raise ConfigError(f"{_said(text)}: {count * len(layers):,} layers; at most {MOST_LAYERS:,} are possible")
    return layers * count


def _said(text: str) -> str:
    return f"stack={text!r}" if len(text) <= 80 else f"stack={text[:77]!r}..."


def _unread(text: str, place: int) -> ConfigError:
    return ConfigError(
        f"{_said(text)}: not understood at character {place + 1}; layers are separated by commas, as in '3*mamba2, gqa' "
        "or '2*(mamba, gqa)'"
    )
