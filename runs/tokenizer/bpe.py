"""Byte-pair encoding, learnt from the text itself."""

from __future__ import annotations

from collections.abc import Iterable

from .library import LARGEST, LearntTokenizer, library, pieces


class BPE(LearntTokenizer):
    """The commonest pair of neighbouring tokens becomes a token, over and over, starting from the 256 bytes.

    Lossless on any text, since no byte is unknown and nothing is normalised.

    Paper: Sennrich et al. 2016, arXiv:1508.07909 (section 3.2), on bytes as in GPT-2. Differs: no special tokens.
    Args:   vocab_size: tokens, the 256 bytes included.
    Raises: ValueError: fewer than 257 tokens, or more than the text has pairs for; the package tokenizers is missing.
    """

    def __init__(self, *, vocab_size: int) -> None:
        if not 256 < vocab_size <= LARGEST:
            raise ValueError(
                f"vocab_size={vocab_size}: BPE starts from the 256 bytes, so give 257 or more, "
                f"at most {LARGEST:,} (or tokenizer=bytes)"
            )
        super().__init__(vocab_size=vocab_size)

    @property
    def settings(self) -> str:
        return f"bpe {self.vocab_size}"

    def fit(self, texts: Iterable[str]) -> None:
        tokenizers = library()
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(vocab_size=self.vocab_size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator((piece for text in texts for piece in pieces(text)), trainer)
        self._set(tokenizer)
