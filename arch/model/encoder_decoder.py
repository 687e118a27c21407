"""The encoder-decoder: a source text is encoded, a target text is generated."""

from __future__ import annotations

from torch import Tensor, nn

from ..contracts import Cost, Memory, Model
from .decoder import Decoder
from .embedding import Embedding
from .encoder import Encoder
from .stack import StackCache


class EncoderDecoder(Model):
    """A decoder some of whose layers attend to the output of an encoder.

    memory = encoder(source);  logits = decoder(tokens | memory)

    Paper: Vaswani 2017, arXiv:1706.03762 (section 3.1); with recurrent layers Bahdanau 2014, arXiv:1409.0473. Differs: the
    layers are whatever is passed in; a decoder layer is two blocks, one over its own text and one of cross-attention.
    Cost per token: that of its parts, for as many source tokens as target tokens.
    Args:   encoder: of the source. decoder: of the target; its cross-attention attends to the encoder's output.
            shared: whether both use one embedding table.
    Shape:  source: (batch, n), tokens: (batch, seq) integers -> (batch, seq, vocab_size)
    Raises: ValueError: a decoder without cross-attention; two tables of different shape that are to be one.
    """

    def __init__(self, *, encoder: Encoder, decoder: Decoder, shared: bool = True) -> None:
        super().__init__()
        if not any(layer.mixer.reads_memory for layer in decoder.blocks):
            raise ValueError("no layer of the decoder attends to the source: at least 1 needs a CrossAttention for its mixer")
        if shared:
            ours, theirs = tuple(encoder.embedding.weight.shape), tuple(decoder.embedding.weight.shape)
            if ours != theirs:
                raise ValueError(f"one table cannot be both {ours} and {theirs}: make them equal, or pass shared=False")
            decoder.embedding.weight = encoder.embedding.weight
        self.encoder = encoder
        self.decoder = decoder
        self.shared = shared

    @property
    def embedding(self) -> Embedding:
        """That of the target."""
        return self.decoder.embedding

    @property
    def causal(self) -> bool:
        """Whether no logit depends on a later token of the target."""
        return self.decoder.causal

    def forward(
        self,
        source: Tensor,
        tokens: Tensor,
        *,
        source_positions: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        return self.decoder(tokens, positions=positions, memory=self.encode(source, source_positions))

    def encode(self, source: Tensor, positions: Tensor | None = None) -> Memory:
        """What cross-attention attends to. source: one text a row, its padding at negative positions."""
        return Memory(x=self.encoder(source, positions=positions), positions=positions)

    def condition(self, source: Tensor, positions: Tensor | None = None) -> ConditionedDecoder:
        """The decoder conditioned on a source: called, and decoded from, like a decoder alone."""
        return ConditionedDecoder(decoder=self.decoder, memory=self.encode(source, positions))

    def cost(self, seq: int) -> Cost:
        encoder = self.encoder.cost(seq)
        shared = self.embedding.weight.numel() if self.shared else 0
        # The layers that attend to the source cache its keys and values: the encoder itself needs no cache.
        return self.decoder.cost(seq) + encoder + Cost(-shared, -shared, 0, -encoder.state_bytes)


class ConditionedDecoder(nn.Module):
    """A decoder with an encoded source, of which there is a row for each text that is generated."""

    def __init__(self, *, decoder: Decoder, memory: Memory) -> None:
        super().__init__()
        self.decoder = decoder
        self.memory = memory

    @property
    def embedding(self) -> Embedding:
        return self.decoder.embedding

    @property
    def causal(self) -> bool:
        return self.decoder.causal

    def forward(self, tokens: Tensor, *, positions: Tensor | None = None, cache: StackCache | None = None) -> Tensor:
        logits: Tensor = self.decoder(tokens, positions=positions, cache=cache, memory=self.memory)
        return logits

    def init_cache(self, batch: int, max_seq: int) -> StackCache:
        return self.decoder.init_cache(batch, max_seq)
