"""Tokens as readable text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..build.errors import ConfigError
from ..tokenizer import Bytes, Tokenizer

UNFINISHED = "\ufffd"  # how a tokenizer writes a part of a character


class ReadableTokens:
    """Text to tokens, and each token to a label on one line.

    Args:   tokenizer: None where tokens are no text. specials: special tokens of the data, by role.
    """

    def __init__(self, tokenizer: Tokenizer | None, specials: Mapping[str, int]) -> None:
        self.tokenizer = tokenizer
        self.specials = dict(specials)

    def encode(self, text: str) -> list[int]:
        """Where tokens are no text, the text gives their numbers, as in "3 1 4"."""
        if self.tokenizer is not None:
            tokens: list[int] = self.tokenizer.encode(text).tolist()
            return tokens
        if not all(number.isdecimal() for number in text.split()):
            raise ConfigError(f"{text!r}: the tokens of this run are no text; give their numbers, as in '3 1 4'")
        return [int(number) for number in text.split()]

    def with_specials(self, tokens: Sequence[int], *, around: bool, before: bool) -> list[int]:
        """With the special tokens of a training row: [CLS] and [SEP] around it, BOS before it, where there are any."""
        first = ["cls"] if around else ["bos"] if before else []
        last = ["sep"] if around else []
        begin, end = ([self.specials[role] for role in roles if role in self.specials] for roles in (first, last))
        return [*begin, *tokens, *end]

    def label(self, token: int) -> str:
        """Its text, a newline as \\n, a byte that is no character as \\xe2; [mask] or <300> where it has no text."""
        for role, special in self.specials.items():
            if token == special:
                return f"[{role}]"
        if self.tokenizer is None:
            return str(token)
        text = self.tokenizer.decode([token]) if token < self.tokenizer.vocab_size else ""
        if UNFINISHED in text or not text:
            return f"\\x{token:02x}" if isinstance(self.tokenizer, Bytes) and token < 256 else f"<{token}>"
        return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
