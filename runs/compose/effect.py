"""Which words of a command line have an effect: what the nodes that a run is built from refer to, and what they refer to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ..build.errors import ConfigError
from ..build.groups import BY_NAME, KEYS, NODES
from ..build.targets import locate, parameters
from .explain import FOLDERS, did_you_mean, known_leaves
from .overrides import group_of, key_of

DEPTH = "size.n_layers"  # over which the layers are laid out
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
        found, waiting = {*self.roots, DEPTH}, list(self.roots)
        while waiting:
            for path in REFERENCE.findall(str(at(self.raw, waiting.pop()))):
                if path not in found:
                    found.add(path)
                    waiting.append(path)
        return found

    def reads(self, key: str) -> bool:
        """Whether a key, or a part of what it holds, is referred to."""
        node, owner = at(self.raw, key), at(self.raw, key.rpartition(".")[0])
        if is_target(owner) and key.rpartition(".")[2] not in owner:
            return False  # its class takes no such argument: see ``drop_foreign``
        # A group that offers parts for several places, as position does, is read where a part that is there is read.
        parts = [f"{key}.{k}" for k, v in node.items() if v is not None] if offers_parts(node) else []
        return any(inside(path, k) or inside(k, path) for k in parts or [key] for path in self.references)


def drop_foreign(config: DictConfig, words: Iterable[str]) -> None:
    """Take out of a composed config what was said of an argument that the chosen class does not have, in place: in a grid
    the word is meant for the other classes, and where none has it nothing reads it."""
    for word in words:
        owner, _, name = key_of(word).rpartition(".")
        node = OmegaConf.select(config, owner) if owner and not owner.startswith("hydra") else None
        if not isinstance(node, DictConfig) or "_target_" not in node or name not in node or name == "_target_":
            continue
        arguments = parameters(locate(node["_target_"], owner), owner)
        if name not in arguments and all(p.kind is not p.VAR_KEYWORD for p in arguments.values()):
            with open_dict(node):
                del node[name]


def is_target(node: Any) -> bool:
    return isinstance(node, dict) and "_target_" in node


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
    """Raises ConfigError: a word that nothing reads, with who would read it."""
    for word in words:
        key, value = key_of(word), word.partition("=")[2]
        if key in KEYS:
            raise ConfigError(f"{key}={value}: no part of {what} uses a {key}; leave it out, or choose what does use it")
        if key not in known_leaves():
            raise ConfigError(f"{key}: unknown key; {did_you_mean(key)}")
        files = [path for folder in FOLDERS for path in sorted(folder.glob("*/*.yaml"))]
        readers = [f"{path.parent.name}={path.stem}" for path in files if reads_key(path, key)]
        hint = f"; read by {', '.join(readers[:4])}" if readers else ""
        raise ConfigError(f"{key}={value}: no part of {what} reads it; leave it out, or choose what does{hint}")


def reads_key(path: Path, key: str) -> bool:
    """Whether an option of conf/ refers to a key, or is of its group and has it for an argument."""
    group, _, name = key.partition(".")
    text = path.read_text()
    return f"${{{key}}}" in text or (path.parent.name == group and f"\n{name}:" in text)
