"""WordPiece, learnt from the text itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from .library import LARGEST, LearntTokenizer, library, pieces
from .likelihood import PREFIX, learn

LONGEST = 100  # bytes of a word, since the search for the longest match takes the square of it


class WordPiece(LearntTokenizer):
    """The pair that occurs together most, for how common its two parts are, becomes a token, over and over.

    score(a, b) = freq(ab) / (freq(a) * freq(b)); a word is then read as the longest tokens that match, from left to right.

    Lossless on any text. The score alone spends the vocabulary on the rarest pairs (two bytes that occur once, side
    by side, score 1), so by default only pairs of about the same frequency compete, the common ones first.

    Paper: Schuster & Nakajima 2012 (ICASSP), as in Wu et al. 2016, arXiv:1609.08144 (section 4.1). Differs: on bytes, with
           GPT-2's words; no special tokens; words end after 100 bytes, and between two #, as ## marks the rest of a word.
    Args:   vocab_size: tokens, the 256 bytes at the beginning of a word and the 256 within one included.
            min_count: pairs that occur less often are never merged; 1: the score alone; None: as many as the commonest
            pair at first, and half as many whenever no pair is left.
    Raises: ValueError: fewer than 513 tokens, or more than the text has pairs for; the package tokenizers is missing.
    """

    prefix = PREFIX

    def __init__(self, *, vocab_size: int, min_count: int | None = None) -> None:
        if not 512 < vocab_size <= LARGEST:
            raise ValueError(
                f"vocab_size={vocab_size}: WordPiece starts from the 256 bytes, at the beginning of a word and within one, "
                f"so give 513 or more, at most {LARGEST:,} (or tokenizer=bpe)"
            )
        if min_count is not None and min_count < 1:
            raise ValueError(f"min_count={min_count}: at least 1 is expected, or null")
        super().__init__(vocab_size=vocab_size)
        self.min_count = min_count

    @property
    def settings(self) -> str:
        return f"wordpiece {self.vocab_size} {self.min_count}"

    def fit(self, texts: Iterable[str]) -> None:
        tokenizers = library()
        splitter = word_splitter()
        counts: Counter[str] = Counter()
        for text in texts:
            for piece in pieces(text):
                counts.update(word for word, _ in splitter.pre_tokenize_str(piece))
        letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
        alphabet = [*letters, *(PREFIX + letter for letter in letters)]
        learnt = learn(counts, vocab_size=self.vocab_size, alphabet=alphabet, min_count=self.min_count)
        vocab = {symbol: i for i, symbol in enumerate(learnt)}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, max_input_chars_per_word=LONGEST))
        tokenizer.pre_tokenizer = splitter
        without_prefix = tokenizers.decoders.Replace(tokenizers.Regex(f"^{PREFIX}"), "")
        tokenizer.decoder = tokenizers.decoders.Sequence([without_prefix, tokenizers.decoders.ByteLevel()])
        self._set(tokenizer)


def word_splitter() -> Any:
    """Splits a text into words: those of GPT-2, none with ## in it, and none too long for the vocabulary look-up."""
    tokenizers = library()
    parts = tokenizers.pre_tokenizers
    return parts.Sequence(
        [
            parts.Split(tokenizers.Regex("#(?=#)"), "isolated"),
            parts.ByteLevel(add_prefix_space=False),
            parts.Split(tokenizers.Regex(f".{{1,{LONGEST}}}"), "isolated"),
        ]
    )
