"""Byte-pair encoding, learnt from the text itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

PIECE = 2**16  # characters encoded as one text: long enough to be quick, short enough to spread over the cores
PIECES = 64  # that are encoded at a time, which bounds memory


class BPE:
    """The commonest pair of neighbouring tokens becomes a token, over and over, starting from the 256 bytes.

    Any text comes back exactly, since no byte is unknown and nothing is normalised.

    Paper: Sennrich et al. 2016, arXiv:1508.07909 (section 3.2), on bytes as in GPT-2. Differs: no special tokens.
    Args:   vocab_size: tokens, the 256 bytes included.
    Raises: ValueError: fewer than 257 tokens, or more than the text has pairs for; the package tokenizers is missing.
    """

    def __init__(self, *, vocab_size: int) -> None:
        if not 256 < vocab_size < 2**32:
            raise ValueError(
                f"vocab_size={vocab_size}: BPE starts from the 256 bytes, so give 257 or more (or tokenizer=bytes)"
            )
        self.vocab_size = vocab_size
        self._merges: Any = None

    @property
    def settings(self) -> str:
        return f"bpe {self.vocab_size}"

    def fit(self, texts: Iterable[str]) -> None:
        library = _library()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        alphabet = library.pre_tokenizers.ByteLevel.alphabet()
        trainer = library.trainers.BpeTrainer(vocab_size=self.vocab_size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator((piece for text in texts for piece in _pieces(text)), trainer)
        self._learn(tokenizer)

    def state(self) -> bytes:
        text: str = self._learnt.to_str()
        return text.encode()

    def restore(self, state: bytes) -> None:
        self._learn(_library().Tokenizer.from_str(state.decode()))

    @cached_property
    def token_bytes(self) -> np.ndarray:
        # the byte-level alphabet writes each byte as one character
        return np.array([len(self._learnt.id_to_token(i)) for i in range(self.vocab_size)], dtype=np.int64)

    def encode(self, text: str) -> np.ndarray:
        dtype = np.uint16 if self.vocab_size <= 2**16 else np.uint32
        pieces = list(_pieces(text))
        encoded: list[np.ndarray] = [np.zeros(0, dtype)]
        for start in range(0, len(pieces), PIECES):
            batch = self._learnt.encode_batch_fast(pieces[start : start + PIECES], add_special_tokens=False)
            encoded += [np.array(one.ids, dtype) for one in batch]
        return np.concatenate(encoded)

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        text: str = self._learnt.decode(np.asarray(tokens).tolist(), skip_special_tokens=False)
        return text

    @property
    def _learnt(self) -> Any:
        if self._merges is None:
            raise RuntimeError("this BPE has learnt nothing yet: fit it to texts, or restore it")
        return self._merges

    def _learn(self, tokenizer: Any) -> None:
        found = tokenizer.get_vocab_size()
        if found != self.vocab_size:
            raise ValueError(
                f"tokenizer.vocab_size={self.vocab_size}: this text yields only {found} tokens; give at most {found}"
            )
        self._merges = tokenizer
        self.__dict__.pop("token_bytes", None)


def _pieces(text: str) -> Iterator[str]:
    """Cut a text into pieces, at line ends where there are any."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + PIECE) + 1 or start + PIECE
        end = len(text) if start + PIECE >= len(text) else end
        yield text[start:end]
        start = end


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise ValueError(
            "tokenizer=bpe needs the package tokenizers: pip install tokenizers (or use tokenizer=bytes)"
        ) from None
    return tokenizers
