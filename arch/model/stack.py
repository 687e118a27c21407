"""What decoders and encoders share: an embedding, layers, a final norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..contracts import Block, Cache, Cost, Norm
from ..mixer.cross import Memory
from .embedding import Embedding


class StackCache(Cache):
    """One cache per layer and the number of tokens that all of them have seen."""

    def __init__(self, layers: list[Cache]) -> None:
        self.layers = layers
        self.length = 0


class Stack(nn.Module):
    """Layers over an embedding, and a norm at the end.

    x_0 = embedding(tokens); x_l = layer_l(x_{l-1}); y = norm(x_L)

    Args:   embedding: tokens to vectors. layers: blocks, first to last. final_norm: None where the layers end in a norm.
    Raises: ValueError: no layer.
    """

    def __init__(self, *, embedding: Embedding, layers: Sequence[Block], final_norm: Norm | None = None) -> None:
        super().__init__()
        if not layers:
            raise ValueError(f"{type(self).__name__} needs at least 1 layer, got 0")
        self.embedding = embedding
        self.layers = nn.ModuleList(layers)
        self.final_norm = final_norm

    @property
    def blocks(self) -> list[Block]:
        return [layer for layer in self.layers if isinstance(layer, Block)]

    @property
    def causal(self) -> bool:
        """Whether no output depends on a later token: every mixer, ffn and router says so of itself."""
        return all(getattr(module, "causal", True) for module in self.layers.modules())

    def hidden(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        types: Tensor | None = None,
        cache: StackCache | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """The last layer's output after the final norm. memory: what cross-attention reads; a cache has read it already."""
        start = 0 if cache is None else cache.length
        places = torch.arange(start, start + tokens.shape[1], device=tokens.device)[None] if positions is None else positions
        x = self.embedding(tokens, places, types)  # (b, s, m)
        for i, layer in enumerate(self.blocks):
            reads = memory if layer.mixer.reads_memory else None
            x = layer(x, positions=positions, cache=reads if cache is None else cache.layers[i])
        if cache is not None:
            cache.length += tokens.shape[1]
        return x if self.final_norm is None else self.final_norm(x)

    def init_cache(self, batch: int, max_seq: int, memory: Memory | None = None) -> StackCache:
        """An empty cache for up to max_seq tokens; memory: what cross-attention reads, kept as keys and values."""
        mixers = [layer.mixer for layer in self.blocks]
        return StackCache([m.read(memory) if m.reads_memory else m.init_cache(batch, max_seq) for m in mixers])

    def cost(self, seq: int) -> Cost:
        last = [] if self.final_norm is None else [self.final_norm.cost(seq)]
        return sum([*(layer.cost(seq) for layer in self.blocks), *last], self.embedding.cost(seq))
