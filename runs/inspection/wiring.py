"""How a layer is wired, read off its own forward: which parts follow each other, and where paths branch and merge.

The layer is traced symbolically, its parts as leaves: so any block that a user writes is drawn as it runs.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import fx, nn

ADDS = (operator.add, operator.iadd, torch.add, "add", "add_")
SYMBOLS: dict[Any, str] = {**dict.fromkeys(ADDS, "+"), operator.mul: "*", torch.mul: "*", "mul": "*"}


class Merge(NamedTuple):
    """Paths that branch at one point and merge by the operation of the symbol; an empty path is the residual one."""

    symbol: str
    paths: list[list[Step]]


Step = str | Merge  # a part by its name, or a point where paths merge


class Parts(fx.Tracer):
    """Traces the layer and not its parts."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def wiring(block: nn.Module) -> list[Step]:
    """The steps from the layer's input to its output. Where its forward cannot be traced: its parts, one after the other."""
    try:
        graph = Parts().trace(block, concrete_args={"positions": None, "cache": None, "memory": None})
    except Exception:  # a forward may do anything: branch on values, call what cannot be traced ...
        return [name for name, part in block.named_children() if not isinstance(part, nn.Dropout)]
    for node in graph.nodes:  # dropout is no part of the wiring
        if node.op == "call_module" and isinstance(block.get_submodule(node.target), nn.Dropout):
            node.replace_all_uses_with(node.all_input_nodes[0])
    start = next(node for node in graph.nodes if node.op == "placeholder")
    return _series(next(node for node in graph.nodes if node.op == "output").all_input_nodes[0], start)


def _inputs(node: fx.Node) -> list[fx.Node]:
    return [node for node in node.all_input_nodes if node.op != "get_attr"]


def _terms(node: fx.Node) -> list[fx.Node]:
    """The inputs that merge in a node. A sum that is only a term of this one is part of it: a + (b + c) = a + b + c."""
    terms: list[fx.Node] = []
    for part in _inputs(node):
        inner = node.target in ADDS and part.target in ADDS and len(part.users) == 1
        terms += _terms(part) if inner else [part]
    return terms


def _chain(node: fx.Node) -> list[fx.Node]:
    """The nodes that every path from the input to this one goes through, this one first."""
    chain = [node]
    while terms := _terms(chain[-1]):
        chain.append(_fork(terms))
    return chain


def _fork(nodes: Sequence[fx.Node]) -> fx.Node:
    """Where the paths to these nodes branch: the last node that all of them go through."""
    others = [set(_chain(node)) for node in nodes[1:]]
    return next(node for node in _chain(nodes[0]) if all(node in chain for chain in others))


def _series(end: fx.Node, start: fx.Node) -> list[Step]:
    """The steps after start, up to and with end."""
    steps: list[Step] = []
    while end is not start:
        terms = _terms(end)
        if len(terms) > 1:
            steps.append(_merge(SYMBOLS.get(end.target, _name(end)), terms))
        else:
            steps.append(_name(end))
        end = _fork(terms)
    return steps[::-1]


def _merge(symbol: str, terms: list[fx.Node]) -> Merge:
    """Terms that share their first steps share them in the drawing too."""
    start = _fork(terms)
    groups: dict[fx.Node | None, list[fx.Node]] = {}
    for term in terms:
        below = _chain(term)
        index = below.index(start)
        groups.setdefault(below[index - 1] if index else None, []).append(term)
    paths: list[list[Step]] = []
    for first, group in groups.items():
        if first is None:
            paths.append([])
        elif len(group) == 1:
            paths.append(_series(group[0], start))
        else:
            paths.append([*_series(_fork(group), start), _merge(symbol, group)])
    return Merge(symbol, paths)


def _name(node: fx.Node) -> str:
    if SYMBOLS.get(node.target) == "*" and (factors := [arg for arg in node.args if isinstance(arg, (int, float))]):
        return f"times {factors[0]:g}"
    return str(node.target) if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
