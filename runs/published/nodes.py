"""A model as a tree of config nodes, its layers one by one: read at a path, completed by defaults, compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..build.targets import locate, parameters

Node = Mapping[str, Any]
Size = Mapping[str, Any]

TRAINING_ONLY = ("dropout",)


def at(node: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path, or the default: another class stands there, or none."""
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return default
        node = node[key]
    return node


def layers(model: Node) -> list[Node]:
    """First to last; of an encoder-decoder, those of the encoder."""
    found: list[Node] = stack(model)["layers"]
    return found


def stack(model: Node) -> Node:
    """The part with the layers; of an encoder-decoder, the encoder."""
    part: Node = model.get("encoder", model)
    return part


def vocab_size(model: Node) -> int:
    size: int = stack(model)["embedding"]["vocab_size"]
    return size


def norm_eps(layer: Node) -> float:
    eps: float = at(layer, "mixer_norm.eps", 1e-5)
    return eps


def completed(node: Any) -> Any:
    """The tree with classes for their names, and with what each of its parts leaves at a default."""
    if isinstance(node, list):
        return [completed(child) for child in node]
    if not isinstance(node, Mapping) or "_target_" not in node:
        return node
    target = locate(node["_target_"], "model")
    defaults = {key: p.default for key, p in parameters(target, "model").items() if p.default is not p.empty}
    given = {key: completed(value) for key, value in node.items() if key != "_target_"}
    full = {key: value for key, value in {**defaults, **given}.items() if key not in TRAINING_ONLY}
    for key, other in getattr(target, "implied", {}).items():
        full[key] = full[other] if full[key] is None else full[key]
    return {"_target_": target, **full}


def first_difference(a: Any, b: Any, path: str = "") -> tuple[str, str, str] | None:
    """Where two completed trees differ, and what stands there in each."""
    if isinstance(a, dict) and isinstance(b, dict) and a.get("_target_") == b.get("_target_"):
        pairs = [(f"{path}.{key}", a.get(key), b.get(key)) for key in a | b]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [(f"{path}.{i}", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return None if a == b else (path.removeprefix(".") or "model", _named(a), _named(b))
    return next((found for where, x, y in pairs if (found := first_difference(x, y, where))), None)


def _named(node: Any) -> str:
    if isinstance(node, dict) and "_target_" in node:
        return str(node["_target_"].__name__)
    return f"a list of {len(node)}" if isinstance(node, list) else json.dumps(node, default=str)
