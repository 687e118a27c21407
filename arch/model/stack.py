"""The base of decoders and encoders: an embedding, layers, a final norm."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..contracts import Block, Cache, Cost, Memory, Model, Norm
from .embedding import Embedding

REQUIRED = (
    "mixer",
    "mixer.init_cache",
    "mixer.reads_memory",
    "ffn",
    "sublayers",
    "causal",
    "outputs_add_up",
    "cost",
)  # attributes of a layer


class StackCache(Cache):
    """One cache per layer, and the number of tokens that they hold."""

    def __init__(self, layers: list[Cache]) -> None:
        self.layers = layers
        self.length = 0


class Stack(Model):
    """Layers over an embedding, and a norm at the end.

    x_0 = embedding(tokens); x_l = layer_l(x_{l-1}); y = norm(x_L)

    Args:   embedding: tokens to vectors. layers: blocks, first to last, or wrappers that pass on a block's
            attributes, as torch.compile's. final_norm: None where the layers end in a norm.
    Raises: ValueError: no layer; a layer that is neither.
    """

    def __init__(self, *, embedding: Embedding, layers: Sequence[Block], final_norm: Norm | None = None) -> None:
        super().__init__()
        if not layers:
            raise ValueError(f"{type(self).__name__} needs at least 1 layer, got 0")
        for i, layer in enumerate(layers):
            if missing := [name for name in REQUIRED if not _has(layer, name)]:
                raise ValueError(
                    f"layer {i} is a {type(layer).__name__} without {', '.join(missing)}: a Block is expected, "
                    "or a wrapper that passes on a block's attributes"
                )
        self.embedding = embedding
        self.layers = nn.ModuleList(layers)
        self.final_norm = final_norm

    @property
    def blocks(self) -> list[Block]:
        """Every layer, wrapped or not."""
        return cast(list[Block], list(self.layers))

    @property
    def causal(self) -> bool:
        """Whether no output depends on a later token."""
        return all(layer.causal for layer in self.blocks)

    def hidden(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        types: Tensor | None = None,
        cache: StackCache | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """The last layer's output after the final norm. memory: for cross-attention; with a cache, at the first call."""
        start = 0 if cache is None else cache.length
        absolute = torch.arange(start, start + tokens.shape[1], device=tokens.device)[None] if positions is None else positions
        x = self.embedding(tokens, absolute, types)  # (b, s, m)
        for i, layer in enumerate(self.layers):
            x = layer(x, positions=positions, cache=None if cache is None else cache.layers[i], memory=memory)
        if cache is not None:
            cache.length += tokens.shape[1]
        return x if self.final_norm is None else self.final_norm(x)

    def init_cache(self, batch: int, max_seq: int) -> StackCache:
        """An empty cache for up to max_seq tokens."""
        return StackCache([layer.mixer.init_cache(batch, max_seq) for layer in self.blocks])

    def cost(self, seq: int) -> Cost:
        last = [] if self.final_norm is None else [self.final_norm.cost(seq)]
        return sum([*(layer.cost(seq) for layer in self.blocks), *last], self.embedding.cost(seq))


def _has(layer: Any, path: str) -> bool:
    try:
        attrgetter(path)(layer)
    except AttributeError:
        return False
    return True
