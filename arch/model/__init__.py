"""Whole models, built from layers: the owners of the embedding table, the final norm and the caches."""

from .decoder import Decoder
from .embedding import Embedding
from .encoder import Encoder, Pooler
from .encoder_decoder import EncoderDecoder
from .head import MaskedLMHead
from .stack import Stack, StackCache

__all__ = ["Decoder", "Embedding", "Encoder", "EncoderDecoder", "MaskedLMHead", "Pooler", "Stack", "StackCache"]
