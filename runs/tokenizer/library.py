"""What tokenizers built on the package tokenizers share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from .contract import Tokenizer

PIECE = 2**16  # characters encoded as one text: long enough to be quick, short enough to spread over the cores
LARGEST = 10**7  # vocabulary: the library lays out room for all of it before it learns
PIECES = 64  # that are encoded at a time, which bounds memory


class LearntTokenizer(Tokenizer):
    """Tokens learnt from the text itself, starting from the 256 bytes, each written as one character of GPT-2's alphabet.

    Lossless on any text, since no byte is unknown and nothing is normalised.
    """

    prefix = ""  # of a token inside a word; it has no bytes of its own

    def __init__(self, *, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._tokenizer: Any = None

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def specials(self) -> dict[str, int]:
        return {}

    def state(self) -> bytes:
        text: str = self._fitted.to_str()
        return text.encode()

    def restore(self, state: bytes) -> None:
        with one_line("not what was learnt"):
            tokenizer = library().Tokenizer.from_str(state.decode())
        if max(tokenizer.get_vocab().values(), default=-1) != self.vocab_size - 1:
            raise ValueError(f"not what was learnt: its tokens are not numbered up to {self.vocab_size - 1}")
        self._set(tokenizer)

    @cached_property
    def token_bytes(self) -> np.ndarray:
        tokens = (self._fitted.id_to_token(i) for i in range(self.vocab_size))
        return np.array([len(token.removeprefix(self.prefix)) for token in tokens], dtype=np.int64)

    def is_lossless(self, text: str) -> bool:
        return True

    def encode(self, text: str) -> np.ndarray:
        return joined(encoded(self._fitted, pieces(text), self.vocab_size), self.vocab_size)

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return decoded(self._fitted, tokens)

    @property
    def _fitted(self) -> Any:
        if self._tokenizer is None:
            raise RuntimeError(f"this {type(self).__name__} is not trained yet: fit it to texts, or restore it")
        return self._tokenizer

    def _set(self, tokenizer: Any) -> None:
        found = tokenizer.get_vocab_size()
        if found != self.vocab_size:
            raise ValueError(
                f"tokenizer.vocab_size={self.vocab_size}: this text yields only {found} tokens; give at most {found}"
            )
        self._tokenizer = tokenizer
        self.__dict__.pop("token_bytes", None)


def pieces(text: str) -> Iterator[str]:
    """Cut a text into pieces, at line ends where there are any."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + PIECE) + 1 or start + PIECE
        end = len(text) if start + PIECE >= len(text) else end
        yield text[start:end]
        start = end


def encoded(tokenizer: Any, texts: Iterable[str], vocab_size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Each text with its tokens, in the smallest type that holds the vocabulary."""
    waiting = iter(texts)
    while batch := list(islice(waiting, PIECES)):
        with one_line("the tokenizer cannot read this text"):
            tokens = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        for text, one in zip(batch, tokens, strict=True):
            yield text, np.array(one.ids, np.min_scalar_type(vocab_size - 1))


def joined(parts: Iterable[tuple[str, np.ndarray]], vocab_size: int) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.min_scalar_type(vocab_size - 1)), *(tokens for _, tokens in parts)])


def decoded(tokenizer: Any, tokens: Sequence[int] | np.ndarray) -> str:
    with one_line("the tokenizer cannot spell these tokens"):
        text: str = tokenizer.decode(np.asarray(tokens).tolist(), skip_special_tokens=False)
    return text


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Whatever the package says of a file by others: it raises nothing more special, and where it panics not even that."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{what} ({said[:200]})") from error


def library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise ValueError(
            "every tokenizer but bytes needs the package tokenizers: pip install tokenizers (or use tokenizer=bytes)"
        ) from None
    return tokenizers
