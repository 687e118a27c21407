"""How large a model may be on paper: what lies beyond is a slip of the hand, and is refused before anything is laid out."""

from __future__ import annotations

from typing import Any

from .errors import ConfigError

LARGEST = 2**20  # of a width, a count, a context: frequencies are lists, and one of this length takes a second
MOST_LAYERS = 1000  # each is composed, built and run once before training: half a minute for so many, 30 ms each


def refuse_other_size(key: str, size: Any) -> None:
    """Raises ConfigError: what is no size. None stands for the vocabulary of the data."""
    if key == "vocab_size" and size is None:
        return
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ConfigError(f"size.{key}={size!r}: a whole number from 1 is expected")
    most = MOST_LAYERS if key == "n_layers" else LARGEST
    if size > most:
        raise ConfigError(f"size.{key}={size}: at most {most:,} is possible")


def refuse_huge(node: Any, path: str) -> None:
    """Raises ConfigError: a number in a model's node that is larger than any size. The seed of a draw is none."""
    if isinstance(node, int) and node > LARGEST and not path.endswith(".seed"):
        raise ConfigError(f"{path}={node}: at most {LARGEST:,} is possible")
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        refuse_huge(child, f"{path}.{key}")
