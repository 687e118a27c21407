"""What a command line says and no part of the run listens to is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..build.errors import ConfigError
from ..build.objects import nearest
from .explain import top_level_keys
from .overrides import key_of

OPTIONAL = ("mixer", "pattern", "position", "score", "ffn", "router", "norm", "cross", "tokenizer", "stack")  # may stay unused


def refuse_unknown(raw: dict[str, Any]) -> None:
    """`+key=value` can add anything at the top; only what conf/ knows has an effect."""
    known = top_level_keys()
    for key in raw:
        if key not in (*known, "hydra"):
            raise ConfigError(f"{key}: unknown key; {nearest(key, known)}")


@dataclass(frozen=True)
class Part:
    """A composed config, the overrides that it was composed from, and which of its nodes the run is built from."""

    raw: Any
    overrides: Sequence[str]
    roots: Sequence[str]


def refuse_unused(parts: Sequence[Part], overrides: Sequence[str]) -> None:
    """A block that was asked for and that no part of the model refers to is an error, not silence."""
    for override in overrides:
        group = key_of(override).split(".", maxsplit=1)[0]
        nodes = [(part.raw.get(group), part) for part in parts if override in part.overrides]
        if group not in OPTIONAL or all(node is None for node, _ in nodes):
            continue
        found = set().union(*(references(part.raw, part.roots) for _, part in nodes))
        for slot in {slot for node, _ in nodes for slot in slots(group, node)}:
            if not any(path == slot or path.startswith(f"{slot}.") for path in found):
                raise ConfigError(f"{override}: no part of this run uses a {group}; leave it out, or choose what does use it")


def slots(group: str, node: Any) -> list[str]:
    """What a config group offers to blocks: itself, or the parts that it has for different places."""
    return [group] if not isinstance(node, dict) or "_target_" in node else [f"{group}.{key}" for key in node if node[key]]


def references(raw: dict[str, Any], roots: Sequence[str]) -> set[str]:
    """Every `${path}` reachable from the given nodes."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        node: Any = raw
        for key in waiting.pop().split("."):
            node = node.get(key) if isinstance(node, dict) else None
        for path in re.findall(r"\$\{([a-z_][\w.]*)\}", str(node)):
            if path not in found:
                found.add(path)
                waiting.append(path)
    return found
