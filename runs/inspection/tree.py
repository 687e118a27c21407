"""The module tree: one line a module, equal layers once, with shapes, settings and the share of the parameters."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import nn

from .folding import Repeat, fold
from .module_settings import PLAIN, is_identity, settings, shape

WIDTH = 120  # columns of a terminal


@dataclass(frozen=True)
class Node:
    """A module, or a parameter with a name other than weight or bias. own: the number of its own parameters.

    Two modules are equal when their nodes are. A parameter that two modules share is the first one's.
    """

    name: str
    kind: str
    details: str
    own: int
    children: tuple[Node, ...] = ()
    layers: bool = False  # children are numbered, and equal ones are listed once

    @property
    def params(self) -> int:
        return self.own + sum(child.params for child in self.children)


class Row(NamedTuple):
    """A line of the tree. times: how many equal ones it stands for."""

    name: str
    kind: str
    details: str
    params: int
    times: int


def module_tree(module: nn.Module, name: str = "", path: str = "", seen: dict[int, str] | None = None) -> Node:
    """The tree under a module. seen: the parameters counted before, by id, with their paths."""
    seen = {} if seen is None else seen
    shapes, own, children = [], 0, []
    for key, parameter in module.named_parameters(recurse=False):
        first = seen.setdefault(id(parameter), f"{path}{key}")
        count = parameter.numel() if first == f"{path}{key}" else 0
        text = shape(parameter) + ("" if count or not parameter.numel() else f" (that of {first})")
        if key in PLAIN:
            own += count
            shapes.append(text if key == "weight" else f"{key} {text}")
        else:
            children.append(Node(key, "", text, count))
    weightless = next(module.parameters(), None) is None  # its own settings describe its parts
    for key, child in () if weightless else module.named_children():
        if not is_identity(child):
            children.append(module_tree(child, key, f"{path}{key}.", seen))
    kind = "" if isinstance(module, (nn.ModuleList, nn.ModuleDict)) else type(module).__name__
    details = ", ".join([*shapes, *settings(module)])
    return Node(name, kind, details, own, tuple(children), layers=isinstance(module, (nn.ModuleList, nn.Sequential)))


def rows(node: Node, depth: int = 0, times: int = 1) -> Iterator[Row]:
    """The lines of the tree, from the top."""
    yield Row("  " * depth + node.name, node.kind, node.details, node.params, times)
    if node.layers:
        yield from _folded(node.children, fold(unnamed(node.children)), depth + 1, times)
    else:
        for child in node.children:
            yield from rows(child, depth + 1, times)


def unnamed(nodes: tuple[Node, ...]) -> list[Node]:
    """For comparison: layers are equal whatever their number."""
    return [replace(node, name="") for node in nodes]


def _folded(layers: tuple[Node, ...], repeats: list[Repeat], depth: int, times: int) -> Iterator[Row]:
    for repeat in repeats:
        label = f"{repeat.label}: {repeat.times} x" if repeat.times > 1 else repeat.label
        if repeat.parts:
            params = sum(layer.params for layer in layers[repeat.first : repeat.first + repeat.items])
            yield Row("  " * depth + f"{label} {repeat.items} layers", "", "", params, times * repeat.times)
            yield from _folded(layers, list(repeat.parts), depth + 1, times * repeat.times)
        else:
            yield from rows(replace(layers[repeat.first], name=label), depth, times * repeat.times)


def tree(model: nn.Module, name: str = "") -> str:
    """The tree as a table of at most 120 columns; what stands under "each" is one of several equal ones."""
    root = module_tree(model, name or type(model).__name__)
    total = max(root.params, 1)
    cells = [("", "", "weights and settings", "each", "parameters", "share")]
    for row in rows(root):
        each = f"{row.params:,}" if row.params and row.times > 1 else ""
        share = f"{100 * row.times * row.params / total:.1f} %" if row.params else ""
        kind = "" if row.kind == row.name else row.kind
        cells.append((row.name, kind, row.details, each, f"{row.times * row.params:,}" if row.params else "", share))
    name_width, kind_width, details_width, *numbers = (max(map(len, column)) for column in zip(*cells, strict=True))
    gaps = 2 * (len(cells[0]) - 1)
    details_width = min(details_width, max(20, WIDTH - name_width - kind_width - sum(numbers) - gaps))
    lines = []
    for module, kind, details, *counts in cells:
        first, *more = textwrap.wrap(details, details_width) or [""]
        texts = [module.ljust(name_width), kind.ljust(kind_width), first.ljust(details_width)]
        lines.append("  ".join([*texts, *(c.rjust(w) for c, w in zip(counts, numbers, strict=True))]).rstrip())
        lines += [" " * (name_width + kind_width + 4) + line for line in more]
    return "\n".join(lines)
