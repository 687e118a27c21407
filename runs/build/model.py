"""The model of a run."""

from __future__ import annotations

from typing import Any

from arch.contracts import Model
from arch.init import initialise

from .objects import build


def build_model(node: dict[str, Any], *, vocab_size: int, seed: int) -> Model:
    """Each layer is built anew from its own node, so that no two layers share a module, and all weights are drawn.

    Args:   node: resolved, every ``layers`` in it a list with one node per block. vocab_size: where the node leaves it open.
    """
    model = build(filled(node, vocab_size), "model", Model)
    if next(model.parameters()).device.type != "meta":
        initialise(model, seed=seed)
    return model


def filled(node: Any, vocab_size: int | None) -> Any:
    """The node with its open vocabularies filled in."""
    if isinstance(node, list):
        return [filled(child, vocab_size) for child in node]
    if not isinstance(node, dict):
        return node
    return {
        key: vocab_size if key == "vocab_size" and value is None else filled(value, vocab_size) for key, value in node.items()
    }
