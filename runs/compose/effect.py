"""Which words of a command line have an effect: what the nodes that a run is built from refer to, and what they refer to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..build.errors import ConfigError
from ..build.groups import KEYS, NODES
from .explain import CONF, did_you_mean, leaves
from .overrides import group_of, key_of

BY_NAME = tuple(name for name, key in KEYS.items() if not (key.layer or key.inherited or key.node))  # read by the run itself
OF_THE_RUN = ("size.n_layers", "size.max_seq")  # over which layers are laid out; the context that costs and exports name
REFERENCE = re.compile(r"\$\{(?:oc\.select:)?([a-z_][\w.]*)(?=[,}])")


@dataclass(frozen=True)
class Part:
    """A composed config, the words that it was composed from, and which of its nodes the run is built from."""

    raw: Any
    words: Sequence[str]
    roots: Sequence[str] = NODES

    @cached_property
    def references(self) -> set[str]:
        """Every path that the roots refer to, and those that these refer to; the roots themselves."""
        found, waiting = {*self.roots, *OF_THE_RUN}, list(self.roots)
        while waiting:
            for path in REFERENCE.findall(str(at(self.raw, waiting.pop()))):
                if path not in found:
                    found.add(path)
                    waiting.append(path)
        return found

    def reads(self, key: str) -> bool:
        """Whether a key, or a part of what it holds, is referred to."""
        node = at(self.raw, key)
        # A group that offers parts for several places, as position does, is read where a part that is there is read.
        parts = [f"{key}.{k}" for k, v in node.items() if v is not None] if offers_parts(node) else []
        return any(inside(path, k) or inside(k, path) for k in parts or [key] for path in self.references)


def offers_parts(node: Any) -> bool:
    return isinstance(node, dict) and "_target_" not in node


def inside(path: str, key: str) -> bool:
    return path == key or path.startswith(f"{key}.")


def at(node: Any, path: str) -> Any:
    for key in path.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return node


def read_words(parts: Iterable[Part], given: Collection[str]) -> set[str]:
    """Those of the given words that have an effect on some part."""
    return {word for part in parts for word in part.words if word in given and (by_name(word) or part.reads(key_of(word)))}


def by_name(word: str) -> bool:
    """Whether the run itself reads a word, and refuses what it does not know."""
    return group_of(word) in (*BY_NAME, "hydra", "layers")


def refuse_idle(words: Iterable[str], what: str = "this run") -> None:
    """Raises ConfigError: words that nothing reads, in one line each key."""
    for word in words:
        key, value = key_of(word), word.partition("=")[2]
        if key in KEYS:
            raise ConfigError(f"{key}={value}: no part of {what} uses a {key}; leave it out, or choose what does use it")
        if "." in key and key not in leaves():
            raise ConfigError(f"{key}: unknown key; {did_you_mean(key)}")
        readers = [f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml") if f"${{{key}}}" in path.read_text()]
        hint = f"; read by {', '.join(sorted(readers)[:4])}" if readers else ""
        raise ConfigError(f"{key}={value}: no part of {what} reads it; leave it out, or choose what does{hint}")
