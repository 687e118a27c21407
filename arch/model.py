"""Whole models, built from layers: they own the embedding table, the absolute position, the final norm and the caches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .contracts import Block, Cache, Cost, Norm, Position, parameters_only


class DecoderCache(Cache):
    """One cache per layer and the number of tokens that all of them have seen."""

    def __init__(self, layers: list[Cache]) -> None:
        self.layers = layers
        self.length = 0


class Decoder(nn.Module):
    """A stack of layers between an embedding table and the logits of the next token.

    x_0 = embed(E[tokens], positions); x_l = layer_l(x_{l-1}); logits = norm(x_L) W, W = E^T where tied

    Paper: Radford 2018 (GPT). Differs: the layers are whatever is passed in.
    Cost per token: vocab_size * d_model parameters (twice where untied), vocab_size * d_model multiply-adds for the logits.
    Args:   d_model: channels of each token. vocab_size: rows of the embedding table. layers: blocks, first to last.
            position: added to the embeddings; None = places are told inside the layers, or not at all.
            final_norm: before the logits; None where the layers end in a norm. tied: logits reuse the embedding table.
    Shape:  tokens: (batch, seq) integers -> (batch, seq, vocab_size)
    Raises: ValueError: no layer.
    """

    def __init__(
        self,
        *,
        d_model: int,
        vocab_size: int,
        layers: Sequence[Block],
        position: Position | None = None,
        final_norm: Norm | None = None,
        tied: bool = True,
    ) -> None:
        super().__init__()
        if not layers:
            raise ValueError("a decoder needs at least 1 layer, got 0")
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.position = position
        self.layers = nn.ModuleList(layers)
        self.final_norm = final_norm
        self.lm_head = None if tied else nn.Linear(d_model, vocab_size, bias=False)

    @property
    def blocks(self) -> list[Block]:
        return [layer for layer in self.layers if isinstance(layer, Block)]

    @property
    def causal(self) -> bool:
        """Whether no logit depends on a later token: every mixer, ffn and router says so of itself."""
        return all(getattr(module, "causal", True) for module in self.layers.modules())

    def forward(self, tokens: Tensor, *, positions: Tensor | None = None, cache: DecoderCache | None = None) -> Tensor:
        x = self.hidden(tokens, positions=positions, cache=cache)
        return F.linear(x, self.embedding.weight) if self.lm_head is None else self.lm_head(x)

    def hidden(self, tokens: Tensor, *, positions: Tensor | None = None, cache: DecoderCache | None = None) -> Tensor:
        """The last layer's output after the final norm: (batch, seq) -> (batch, seq, d_model)."""
        x = self.embedding(tokens)  # (b, s, m)
        if self.position is not None:
            start = 0 if cache is None else cache.length
            places = torch.arange(start, start + tokens.shape[1], device=x.device)[None] if positions is None else positions
            x = self.position.embed(x, places)
        for i, layer in enumerate(self.layers):
            x = layer(x, positions=positions, cache=None if cache is None else cache.layers[i])
        if cache is not None:
            cache.length += tokens.shape[1]
        return x if self.final_norm is None else self.final_norm(x)

    def init_cache(self, batch: int, max_seq: int) -> DecoderCache:
        return DecoderCache([layer.mixer.init_cache(batch, max_seq) for layer in self.blocks])

    def cost(self, seq: int) -> Cost:
        head = Cost(flops=2 * self.embedding.weight.numel())
        table = parameters_only(self.embedding)
        parts = [layer.cost(seq) for layer in self.blocks]
        parts += [part.cost(seq) for part in (self.position, self.final_norm) if part is not None]
        if self.lm_head is not None:
            parts.append(parameters_only(self.lm_head))
        return sum(parts, head + table)
